"""The three families behind one door: every variant by name, every checkpoint by its content.

In: a variant's name, or an `.npz` file as Google publishes it for Mixer, ViT and BiT. Out: a Flax
module and, from a file, its parameters. A checkpoint says what it is: family and sizes are read off
its keys and shapes, every key is used once and every shape is checked.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from reference import bit, checkpoint, mixer, vit
from reference.checkpoint import Arrays, CheckpointError

Config = mixer.MixerConfig | vit.ViTConfig | bit.BiTConfig
Apply = Callable[[optax.Params, jax.Array], jax.Array]

VARIANTS: dict[str, Config] = {**mixer.VARIANTS, **vit.VARIANTS, **bit.VARIANTS}
_MODULES: dict[type[Config], Callable[..., nn.Module]] = {
    mixer.MixerConfig: mixer.MlpMixer,
    vit.ViTConfig: vit.VisionTransformer,
    bit.BiTConfig: bit.BigTransfer,
}
# The start of the keys that only one family has.
_SCOPES: dict[str, type[Config]] = {
    "MixerBlock_": mixer.MixerConfig,
    "Transformer/": vit.ViTConfig,
    "resnet/": bit.BiTConfig,
}
# ViT files written by today's Linen number the parts of a block by kind; the published ones in all.
_RENAMED = [
    (re.compile(r"(/encoderblock_\d+)/LayerNorm_1/"), r"\1/LayerNorm_2/"),
    (re.compile(r"/MultiHeadDotProductAttention_0/"), "/MultiHeadDotProductAttention_1/"),
    (re.compile(r"/MlpBlock_0/"), "/MlpBlock_3/"),
    (re.compile(r"/standardized_conv2d_\d+/"), "/standardized_conv2d/"),
]


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A checkpoint that was read: its sizes and its parameters, under the published names."""

    config: Config
    num_classes: int
    image_size: int | None  # pixels per side; None where the network takes any
    params: dict[str, Any]


class UnknownVariantError(ValueError):
    """There is no such variant; the message lists those that there are."""


def variant(name: str) -> Config:
    """The sizes of a variant; raises UnknownVariantError."""
    if name not in VARIANTS:
        close = difflib.get_close_matches(name, VARIANTS, 1)
        hint = f"did you mean {close[0]}? There are " if close else "there are "
        raise UnknownVariantError(f"no {name!r}; {hint}{', '.join(VARIANTS)}")
    return VARIANTS[name]


def name_of(config: Config) -> str:
    """The variant with these sizes, or "custom"."""
    return next((name for name, sizes in VARIANTS.items() if sizes == config), "custom")


def native_image_size(name: str) -> int:
    """Pixels per side that a variant is meant for; raises UnknownVariantError."""
    variant(name)
    return 32 if name in ("mixer_cifar10", "mixer_testing", "vit_testing", "bit_testing") else 224


def build(config: Config, num_classes: int, dtype: str = "float32") -> nn.Module:
    """The network with these sizes, which computes in `dtype`; parameters stay float32."""
    return _MODULES[type(config)](config, num_classes, dtype)


def init(model: nn.Module, key: jax.Array, image_size: int) -> optax.Params:
    """Fresh parameters for images of `image_size` pixels per side."""
    blank = jnp.zeros((1, image_size, image_size, 3))
    # Compiled as one, which also leaves out the forward pass.
    return cast("optax.Params", jax.jit(model.init)(key, blank)["params"])


def shapes(model: nn.Module, image_size: int) -> optax.Params:
    """What `init` would give, as shapes: nothing is computed."""
    return jax.eval_shape(lambda: init(model, jax.random.key(0), image_size))


def apply(model: nn.Module, params: optax.Params, inputs: jax.Array) -> jax.Array:
    """The forward pass: float32 images [N, H, W, 3] in [-1, 1] to float32 logits [N, K]."""
    return cast("jax.Array", model.apply({"params": params}, inputs))


def read(path: Path) -> Pretrained:
    """Read a checkpoint of any family. Raises CheckpointError naming the key that does not fit."""
    arrays = checkpoint.read_arrays(path)
    try:
        return from_arrays(arrays)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def from_arrays(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Pretrained:
    """What `read` does, for arrays that were read already."""
    arrays = _under_published_names(arrays)
    families = [
        family for scope, family in _SCOPES.items() if any(k.startswith(scope) for k in arrays)
    ]
    if len(families) != 1:
        raise CheckpointError(
            f"expected keys that start with one of {', '.join(_SCOPES)} (Mixer, ViT, BiT); found "
            f"{', '.join(sorted(arrays)[:3]) or 'nothing'}"
        )
    found = {key: value.shape for key, value in arrays.items()}
    for key, rank in families[0].anchors.items():
        if key not in found or len(found[key]) != rank:
            what = f"shape {found[key]}" if key in found else "no such key"
            raise CheckpointError(f"expected {key} with {rank} dimensions; found {what}")
    config, image_size, num_classes = families[0].read(found)
    expected = {
        key: value.shape
        for key, value in checkpoint.flatten_tree(
            shapes(build(config, num_classes), image_size or 32)
        ).items()
    }
    for key in sorted(expected.keys() | found.keys()):
        have = f"shape {found[key]}" if key in found else "no such key"
        want = f"shape {expected[key]}" if key in expected else "no such key"
        if have != want:
            raise CheckpointError(f"{key}: expected {want}, found {have}")
        if arrays[key].dtype.kind != "f":
            raise CheckpointError(f"{key}: expected floating point, found {arrays[key].dtype}")
    params = {key: np.asarray(value, np.float32) for key, value in arrays.items()}
    return Pretrained(config, num_classes, image_size, checkpoint.unflatten(params))


def _under_published_names(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Arrays:
    """Undo what some files do to names and shapes: optimiser state, Linen's names, [1, 1, 1, C]."""
    prefix = "opt/target/"  # files of optimiser state keep the parameters under this key
    if any(key.startswith(prefix) for key in arrays):
        arrays = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    linen = any("/MultiHeadDotProductAttention_0/" in key for key in arrays)
    renamed: Arrays = {}
    for key, value in arrays.items():
        name = key
        for pattern, replacement in _RENAMED if linen or "resnet/" in key else []:
            name = pattern.sub(replacement, name)
        if name in renamed:
            raise CheckpointError(f"{name}: found twice, the second time as {key}")
        squeezed = name.endswith(("/gamma", "/beta")) and value.ndim == 4
        renamed[name] = value.reshape(value.shape[-1:]) if squeezed else value
    return renamed
