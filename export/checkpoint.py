"""Checkpoints: a file of weights becomes a PyTorch module that computes the same logits.

In: an `.npz` in the format that Google publishes for Mixer, ViT and BiT, or timm's `.safetensors`
of the same models. The architecture is read off keys and shapes; nobody names it. Out: a
`Classifier`. Random weights, for measuring throughput, take the same path.
"""

import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
import torch
from torch import nn

from export import timm
from export.archives import ArrayFile, open_arrays
from export.models import FAMILIES, VARIANTS, BiTConfig, Config
from export.models.layers import Gelu
from export.preprocessing import (
    Preprocessing,
    read_timm_config,
    timm_image_size,
    timm_preprocessing,
)
from export.published import (
    Array,
    Arrays,
    CheckpointError,
    Shape,
    load_published,
    published_layers,
)

__all__ = ["CheckpointError", "Classifier", "Preprocessing", "load_classifier", "random_classifier"]

# Files that hold the state of an optimiser keep the parameters under this key.
_OPTIMIZER_PREFIX = "opt/target/"
# The scopes that BiT's files may number.
_NUMBERED = re.compile(r"\b(standardized_conv2d|group_norm|conv2d)_\d+\b")
# Today's names of a ViT block's parts, and the published ones.
_LINEN_NAMES = {
    "LayerNorm_1": "LayerNorm_2",
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
    "MlpBlock_0": "MlpBlock_3",
}


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A module in eval mode, float32 [N, H, W, 3] in [-1, 1] -> logits [N, K], and its origin."""

    module: nn.Module
    family: str  # "mixer", "vit" or "bit"
    variant: str | None  # the table's name for these sizes
    image_size: int  # pixels per side
    num_classes: int
    preprocessing: Preprocessing
    source: str  # the file's name, or the variant's for random weights
    sha256: str  # of the file; empty for random weights
    random_weights: bool = False


def load_classifier(
    path: Path, image_size: int | None = None, gelu: Gelu | None = None
) -> Classifier:
    """Read a checkpoint; raises CheckpointError, one sentence, for any file that does not fit.

    `image_size` defaults to that of the weights (224 for BiT, whose files hold none). A Mixer can
    take whole multiples of it, ViT and BiT any size. `gelu` overrides the form that goes
    with the file's format: "tanh" for published files, "erf" for timm's.
    """
    note = ""
    try:
        with open_arrays(path) as file:
            if timm.family_of(file.shapes) is not None:
                note = " (the file has timm's keys; these are the published ones)"
            arrays, config, preprocessing = _interpret(path, file, image_size)
            if gelu is not None:
                config = _with_gelu(config, gelu)
            size = config.image_size if image_size is None else image_size
            module = _build(config, size)
            load_published(module, arrays)
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}{note}") from None
    return Classifier(
        module=module,
        family=config.family,
        variant=_variant_of(config),
        image_size=size,
        num_classes=config.num_classes,
        preprocessing=preprocessing,
        source=path.name,
        sha256=sha256,
    )


def random_classifier(
    variant: str, image_size: int | None = None, num_classes: int | None = None, seed: int = 0
) -> Classifier:
    """A variant of the table with random weights, the same for the same seed: for throughput.

    The weights are drawn as a checkpoint of the variant's own image size would hold them, so that
    another `image_size` costs what it costs with a real checkpoint.
    Raises CheckpointError for an unknown variant or an image size that it cannot take.
    """
    if variant not in VARIANTS:
        raise CheckpointError(f"unknown model {variant!r}; known: {', '.join(VARIANTS)}")
    config = VARIANTS[variant]
    if num_classes is not None:
        if num_classes < 1:
            raise CheckpointError(f"expected at least 1 class, found {num_classes}")
        config = dataclasses.replace(config, num_classes=num_classes)
    size = config.image_size if image_size is None else image_size
    module = _build(config, size)
    load_published(module, RandomArrays(module, seed))
    return Classifier(
        module=module,
        family=config.family,
        variant=variant,
        image_size=size,
        num_classes=config.num_classes,
        preprocessing=Preprocessing(),
        source=variant,
        sha256="",
        random_weights=True,
    )


class Renamed:
    """The arrays of a published file under the one spelling of their keys that modules know.

    Undoes what publishers varied: the optimiser's prefix (the rest of such a file is ignored), the
    naming generation of ViT, numbered scopes of BiT, and vectors stored [1, 1, 1, C].
    """

    def __init__(self, file: Arrays) -> None:
        self._file = file
        self._keys: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        prefix = (
            _OPTIMIZER_PREFIX if any(k.startswith(_OPTIMIZER_PREFIX) for k in file.shapes) else ""
        )
        linen = any("/MlpBlock_0/" in key for key in file.shapes)
        for key, shape in file.shapes.items():
            if not key.startswith(prefix):
                continue
            name = _NUMBERED.sub(r"\1", key.removeprefix(prefix))
            if linen:
                name = "/".join(_LINEN_NAMES.get(part, part) for part in name.split("/"))
            if name in self._keys:
                raise CheckpointError(
                    f"{key}: expected one array of this meaning, found also {self._keys[name]}"
                )
            self._keys[name] = key
            self.shapes[name] = shape[3:] if len(shape) == 4 and shape[:3] == (1, 1, 1) else shape

    def read(self, key: str) -> Array:
        """The values of one array, float32."""
        return self._file.read(self._keys[key]).reshape(self.shapes[key])


class RandomArrays:
    """Random parameters of a module, drawn when read: the scale of activations stays near 1."""

    def __init__(self, module: nn.Module, seed: int) -> None:
        self.shapes = {key: shape for key, _, _, shape in published_layers(module)}
        self._generator = torch.Generator().manual_seed(seed)

    def read(self, key: str) -> Array:
        """Kernels N(0, 1 / inputs), scales 1, everything else N(0, 0.02²)."""
        shape = self.shapes[key]
        name = key.rsplit("/", 1)[-1]
        if name in ("scale", "gamma"):
            return np.ones(shape, np.float32)
        # The kernels of a ViT's query, key and value lie [inputs, heads, width of a head].
        inputs = shape[0] if re.search(r"/(query|key|value)/", key) else np.prod(shape[:-1])
        deviation = float(inputs) ** -0.5 if name == "kernel" else 0.02
        values = torch.empty(shape).normal_(0.0, deviation, generator=self._generator)
        array: Array = values.numpy()
        return array


def _interpret(
    path: Path, file: ArrayFile, image_size: int | None
) -> tuple[Arrays, Config, Preprocessing]:
    family = timm.family_of(file.shapes)
    if family is None:
        published = Renamed(file)
        return published, _read_config(published.shapes), Preprocessing()
    pretrained_cfg = read_timm_config(path, file.metadata, family)
    arrays = timm.TimmArrays(file, family, pretrained_cfg)
    config = dataclasses.replace(_read_config(arrays.shapes), **timm.FLAVOURS[family])
    if isinstance(config, BiTConfig):
        trained = timm_image_size(pretrained_cfg, config.image_size)
        config = dataclasses.replace(config, image_size=trained)
    size = config.image_size if image_size is None else image_size
    return arrays, config, timm_preprocessing(pretrained_cfg, family, config.image_size, size)


def _with_gelu(config: Config, form: Gelu) -> Config:
    if isinstance(config, BiTConfig):
        raise CheckpointError(f"a BiT has no GELU, so no form of it can be chosen ({form})")
    return dataclasses.replace(config, gelu=form)


def _read_config(shapes: dict[str, Shape]) -> Config:
    for family in FAMILIES:
        if any(key.startswith(family.scopes) for key in shapes):
            return family.read(shapes)
    some = ", ".join(sorted(shapes)[:3])
    raise CheckpointError(
        "expected the keys of a Mixer (stem/kernel, MixerBlock_0/…), a ViT (embedding/kernel, "
        f"Transformer/…) or a BiT (resnet/…), found {len(shapes)} keys: {some}, …"
    )


def _build(config: Config, image_size: int) -> nn.Module:
    if image_size < 1:
        raise CheckpointError(f"image size {image_size}: expected at least 1 pixel")
    with torch.device("meta"):  # no memory until the values arrive
        return config.build(image_size)


def _variant_of(config: Config) -> str | None:
    for name, row in VARIANTS.items():
        if (row.family, row.sizes()) == (config.family, config.sizes()):
            return name
    return None
