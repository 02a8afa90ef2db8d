"""Loading of published checkpoints: `a/b/c` keys and arrays of known shapes.

In: arrays, by key. Out: a module with its parameters. Every module of `export.models` names its
parameters as the published keys do, with dots for the slashes, so that no table of names is needed.
Some arrays have another layout in the file; their layers define it in `published_shapes` and
`from_published`.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from contracts.npz import Array, Arrays
from contracts.published import Shape, check_shapes


class PublishedLayer(nn.Module):
    """A layer with parameters; by default they have the same layout in the file as here."""

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

    Every array is used exactly once. Raises CheckpointError, which names the key, for an array that
    is missing, unused, of another shape, or not readable.
    """
    layers = list(published_layers(module))
    check_shapes(arrays.shapes, {key: shape for key, _, _, shape in layers})
    for key, layer, name, _ in layers:
        array = arrays.read(key)
        values = np.ascontiguousarray(layer.from_published(name, array), dtype=np.float32)
        setattr(layer, name, nn.Parameter(torch.from_numpy(values), requires_grad=False))
    module.eval()
