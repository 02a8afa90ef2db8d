"""Random weights, for measuring throughput: any variant of the table without a file.

In: a variant's name and a seed. Out: a `Classifier` whose answers mean nothing; its speed is that
of trained weights. The weights take the same path as those of a checkpoint.
"""

import dataclasses
import re

import numpy as np
import torch
from torch import nn

from contracts.npz import Array
from contracts.published import CheckpointError
from contracts.variants import VARIANTS
from export.classifier import Classifier, empty_module
from export.models import network_of
from export.models.parameters import load_published, published_layers


def random_classifier(
    variant: str, image_size: int | None = None, num_classes: int | None = None, seed: int = 0
) -> Classifier:
    """A variant of the table with random weights, the same for the same seed: for throughput.

    The weights are drawn in the shapes of a checkpoint for the variant's own image size, so that
    another `image_size` has the same cost as with a real checkpoint.
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
    module = empty_module(network, size)
    load_published(module, RandomArrays(module, seed))
    return Classifier(
        module=module,
        family=network.family,
        variant=variant,
        image_size=size,
        num_classes=network.num_classes,
        source=variant,
        sha256="",
        random_weights=True,
    )


class RandomArrays:
    """Random parameters of a module, drawn when they are read; activations keep a scale near 1."""

    def __init__(self, module: nn.Module, seed: int) -> None:
        self.shapes = {key: shape for key, _, _, shape in published_layers(module)}
        self._generator = torch.Generator().manual_seed(seed)

    def read(self, key: str) -> Array:
        """Kernels N(0, 1 / inputs), scales 1, everything else N(0, 0.02²)."""
        shape = self.shapes[key]
        name = key.rsplit("/", 1)[-1]
        if name in ("scale", "gamma"):
            return np.ones(shape, np.float32)
        # The kernels of a ViT's query, key and value are [inputs, heads, width of a head].
        inputs = shape[0] if re.search(r"/(query|key|value)/", key) else np.prod(shape[:-1])
        deviation = float(inputs) ** -0.5 if name == "kernel" else 0.02
        values = torch.empty(shape).normal_(0.0, deviation, generator=self._generator)
        array: Array = values.numpy()
        return array
