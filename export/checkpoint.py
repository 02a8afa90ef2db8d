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

from contracts.npz import Array, Arrays, PublishedArrays
from contracts.published import CheckpointError, read_contents
from contracts.variants import VARIANTS, variant_name
from export import timm
from export.archives import ArrayFile, open_arrays
from export.models import Flavour, Gelu, Network, build, network_of
from export.models.parameters import load_published, published_layers
from export.preprocessing import (
    Preprocessing,
    read_timm_config,
    timm_image_size,
    timm_preprocessing,
)

__all__ = ["CheckpointError", "Classifier", "Preprocessing", "load_classifier", "random_classifier"]

USUAL_BIT_SIZE = 224  # pixels per side; a BiT's weights fit any, and hold none


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
            arrays, network, preprocessing = _interpret(path, file, image_size)
            if gelu is not None:
                network = _with_gelu(network, gelu)
            size = network.image_size if image_size is None else image_size
            module = _build(network, size)
            load_published(module, arrays)
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}{note}") from None
    return Classifier(
        module=module,
        family=network.family,
        variant=variant_name(network.sizes),
        image_size=size,
        num_classes=network.num_classes,
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
    network = network_of(variant)
    if num_classes is not None:
        if num_classes < 1:
            raise CheckpointError(f"expected at least 1 class, found {num_classes}")
        network = dataclasses.replace(network, num_classes=num_classes)
    size = network.image_size if image_size is None else image_size
    module = _build(network, size)
    load_published(module, RandomArrays(module, seed))
    return Classifier(
        module=module,
        family=network.family,
        variant=variant,
        image_size=size,
        num_classes=network.num_classes,
        preprocessing=Preprocessing(),
        source=variant,
        sha256="",
        random_weights=True,
    )


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
) -> tuple[Arrays, Network, Preprocessing]:
    family = timm.family_of(file.shapes)
    if family is None:
        published = PublishedArrays(file)
        return published, _read_network(published, Flavour()), Preprocessing()
    pretrained_cfg = read_timm_config(path, file.metadata, family)
    arrays = timm.TimmArrays(file, family, pretrained_cfg)
    network = _read_network(arrays, timm.FLAVOURS[family])
    if family == "bit":
        trained = timm_image_size(pretrained_cfg, network.image_size)
        network = dataclasses.replace(network, image_size=trained)
    size = network.image_size if image_size is None else image_size
    return arrays, network, timm_preprocessing(pretrained_cfg, family, network.image_size, size)


def _read_network(arrays: Arrays, flavour: Flavour) -> Network:
    contents = read_contents(arrays.shapes)
    size = contents.image_size or USUAL_BIT_SIZE
    return Network(contents.sizes, size, contents.num_classes, flavour)


def _with_gelu(network: Network, form: Gelu) -> Network:
    if network.family == "bit":
        raise CheckpointError(f"a BiT has no GELU, so no form of it can be chosen ({form})")
    return dataclasses.replace(network, flavour=dataclasses.replace(network.flavour, gelu=form))


def _build(network: Network, image_size: int) -> nn.Module:
    if image_size < 1:
        raise CheckpointError(f"image size {image_size}: expected at least 1 pixel")
    with torch.device("meta"):  # no memory until the values arrive
        return build(network, image_size)
