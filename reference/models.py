"""One interface to the three families: every variant by name, every checkpoint by its content.

In: a variant's name, or an `.npz` file as Google publishes it for Mixer, ViT and BiT. Out: a Flax
module and, from a file, its parameters. The keys and shapes of a checkpoint show its family and
sizes; every key is used once and every shape is checked.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from contracts.npz import Arrays, PublishedArrays, checked, open_npz
from contracts.published import CheckpointError, read_contents
from contracts.variants import VARIANTS, BiTSizes, MixerSizes, Sizes, ViTSizes, variant_name
from reference import bit, checkpoint, mixer, vit

Apply = Callable[[optax.Params, jax.Array], jax.Array]

_MODULES: dict[type[Sizes], type[nn.Module]] = {
    MixerSizes: mixer.MlpMixer,
    ViTSizes: vit.VisionTransformer,
    BiTSizes: bit.BigTransfer,
}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A checkpoint that was read: its sizes and its parameters, under the published names."""

    config: Sizes
    num_classes: int
    image_size: int | None  # pixels per side; None where the network takes any
    params: dict[str, Any]


class UnknownVariantError(ValueError):
    """There is no such variant; the message lists all variants."""


def variant(name: str) -> Sizes:
    """The sizes of a variant; raises UnknownVariantError."""
    if name not in VARIANTS:
        close = difflib.get_close_matches(name, VARIANTS, 1)
        hint = f"did you mean {close[0]}? There are " if close else "there are "
        raise UnknownVariantError(f"no {name!r}; {hint}{', '.join(VARIANTS)}")
    return VARIANTS[name].sizes


def name_of(config: Sizes) -> str:
    """The variant with these sizes, or "custom"."""
    return variant_name(config) or "custom"


def native_image_size(name: str) -> int:
    """Pixels per side that a variant is meant for; raises UnknownVariantError."""
    variant(name)
    return VARIANTS[name].image_size


def build(
    config: Sizes, num_classes: int, dtype: str = "float32", **regularisation: float
) -> nn.Module:
    """The network with these sizes, which computes in `dtype`; parameters stay float32.

    `dropout` and `stochastic_depth` have an effect where `apply` is given a key. Raises ValueError
    for a regularisation that the family does not have.
    """
    module = _MODULES[type(config)]
    known = {field.name for field in dataclasses.fields(module)}
    wanted = {name: rate for name, rate in regularisation.items() if rate}
    for name in wanted.keys() - known:
        raise ValueError(f"{name}: a {module.__name__} has none; leave it at 0")
    return module(config, num_classes, dtype, **wanted)


def init(model: nn.Module, key: jax.Array, image_size: int) -> optax.Params:
    """Fresh parameters for images of `image_size` pixels per side."""
    blank = jnp.zeros((1, image_size, image_size, 3))
    # Compiled as one function, so that XLA removes the forward pass, which is not needed.
    return cast("optax.Params", jax.jit(model.init)(key, blank)["params"])


def shapes(model: nn.Module, image_size: int) -> optax.Params:
    """The shapes of `init`'s parameters; nothing is computed."""
    return jax.eval_shape(lambda: init(model, jax.random.key(0), image_size))


def apply(
    model: nn.Module, params: optax.Params, inputs: jax.Array, key: jax.Array | None = None
) -> jax.Array:
    """The forward pass: float32 images [N, H, W, 3] in [-1, 1] to float32 logits [N, K].

    With a random key it is that of training, with dropout and stochastic depth.
    """
    if key is None:
        return cast("jax.Array", model.apply({"params": params}, inputs))
    rngs = {"dropout": key}
    return cast("jax.Array", model.apply({"params": params}, inputs, train=True, rngs=rngs))


def read(path: Path) -> Pretrained:
    """Read a checkpoint of any family; raises CheckpointError, which names the wrong key."""
    try:
        with open_npz(path) as arrays:
            return _pretrained(arrays)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


class InMemory:
    """Arrays that are in memory already."""

    def __init__(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self._arrays = arrays
        self.shapes = {key: value.shape for key, value in arrays.items()}

    def read(self, key: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The values of one array, float32; raises CheckpointError."""
        return checked(key, self._arrays[key])


def _pretrained(file: Arrays) -> Pretrained:
    arrays = PublishedArrays(file)
    found = read_contents(arrays.shapes)
    params = {name: arrays.read(name) for name in arrays.shapes}
    nested = checkpoint.unflatten(params)
    return Pretrained(found.sizes, found.num_classes, found.image_size, nested)
