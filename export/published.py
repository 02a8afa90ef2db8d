"""Parameters as they lie in published checkpoints: `a/b/c` keys and arrays of stated shapes.

Every module of `export.models` names its parameters as the published keys do, with dots for the
slashes, so that no table of names is needed. What differs is how some arrays lie: a layer says so
in `published_shapes` and `from_published`. In: arrays, by key. Out: a module with its parameters.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

Array = npt.NDArray[np.float32]
Shape = tuple[int, ...]


class CheckpointError(ValueError):
    """The checkpoint cannot be used; the message names the key, what was expected and found."""


class Arrays(Protocol):
    """The arrays of one checkpoint. Shapes are known at once, values are read one at a time."""

    shapes: dict[str, Shape]

    def read(self, key: str) -> Array:
        """The values of one array, float32."""
        ...


class PublishedLayer(nn.Module):
    """A layer with parameters of its own, which lie in the file as here unless it says so."""

    def published_shapes(self) -> dict[str, Shape]:
        """The shape of each parameter's array in a published file, by the parameter's name."""
        return {name: tuple(p.shape) for name, p in self.named_parameters(recurse=False)}

    def from_published(self, name: str, array: Array) -> Array:
        """The parameter's values, given its array from the file; the default is a reshape."""
        return array.reshape(self.get_parameter(name).shape)


def published_layers(module: nn.Module) -> Iterator[tuple[str, PublishedLayer, str, Shape]]:
    """Every parameter of a module: published key, layer, name in that layer, published shape."""
    for path, layer in module.named_modules():
        if isinstance(layer, PublishedLayer):
            for name, shape in layer.published_shapes().items():
                yield f"{path}.{name}".lstrip(".").replace(".", "/"), layer, name, shape


def load_published(module: nn.Module, arrays: Arrays) -> None:
    """Give every parameter of `module` its values; the module may be on the meta device.

    Every array is consumed exactly once. Raises CheckpointError, naming the key, for an array that
    is missing, left over, of another shape, or not finite.
    """
    layers = list(published_layers(module))
    expected = {key: shape for key, _, _, shape in layers}
    for key in sorted(expected.keys() | arrays.shapes.keys()):
        wanted = f"shape {expected[key]}" if key in expected else "no such key"
        found = f"shape {arrays.shapes[key]}" if key in arrays.shapes else "no such key"
        if wanted != found:
            raise CheckpointError(f"{key}: expected {wanted}, found {found}")
    for key, layer, name, _ in layers:
        array = arrays.read(key)
        if not np.isfinite(array).all():
            raise CheckpointError(f"{key}: expected finite numbers, found NaN or infinity")
        values = np.ascontiguousarray(layer.from_published(name, array), dtype=np.float32)
        setattr(layer, name, nn.Parameter(torch.from_numpy(values), requires_grad=False))
    module.eval()


def anchor(shapes: dict[str, Shape], key: str, form: str) -> Shape:
    """The shape of an array that sizes are read off; `form` names its axes, as in "P P 3 C".

    Raises CheckpointError where the array is missing or has another number of axes, an axis of
    length zero, or another length than a number in `form` says.
    """
    axes = form.split()
    shape = shapes.get(key, ())
    if len(shape) != len(axes) or any(
        size != int(axis) if axis.isdecimal() else size < 1
        for size, axis in zip(shape, axes, strict=True)
    ):
        found = f"shape {shape}" if key in shapes else "no such key"
        raise CheckpointError(f"{key}: expected an array [{', '.join(axes)}], found {found}")
    return shape


def count(shapes: dict[str, Shape], prefix: str, first: int = 0) -> int:
    """How many scopes `prefix0/`, `prefix1/`, … a checkpoint has; at least one.

    Raises CheckpointError where the numbers do not run on from `first`.
    """
    names = {key.removeprefix(prefix).split("/")[0] for key in shapes if key.startswith(prefix)}
    numbers = {int(name) for name in names if name.isdecimal() and len(name) < 7}
    found = sorted(numbers)
    if not found or found != list(range(first, first + len(found))):
        raise CheckpointError(
            f"{prefix}*: expected scopes numbered from {first} without a gap, "
            f"found the numbers {found[:8]}{'…' if len(found) > 8 else ''}"
        )
    return len(found)
