"""A classifier in PyTorch, with the facts that publishing needs.

In: weights that were read or drawn at random. Out: a `Classifier`.
"""

import dataclasses

import torch
from torch import nn

from contracts.published import CheckpointError
from export.models import Network, build
from export.preprocessing import (
    USUAL_NORMALIZATION,
    USUAL_PREPROCESSING,
    Activation,
    Normalization,
    Preprocessing,
)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A module in eval mode and its origin.

    The module takes float32 [N, H, W, 3], normalised as `normalization` says, and gives logits
    [N, K].
    """

    module: nn.Module
    family: str  # "mixer", "vit" or "bit"
    variant: str | None  # the table's name for these sizes
    image_size: int  # pixels per side
    num_classes: int
    source: str  # the file's name, or the variant's for random weights
    sha256: str  # of the file; empty for random weights
    preprocessing: Preprocessing = USUAL_PREPROCESSING
    normalization: Normalization = USUAL_NORMALIZATION
    activation: Activation = "softmax"
    labels: list[str] | None = None  # the labels that came with the weights
    tag: str = ""  # timm's tag of its weights: the data of their training
    random_weights: bool = False


def empty_module(network: Network, image_size: int) -> nn.Module:
    """The network for images of `image_size` pixels per side, without values or memory for them.

    Raises CheckpointError where the weights cannot be used at that size.
    """
    if image_size < 1:
        raise CheckpointError(f"image size {image_size}: expected at least 1 pixel")
    with torch.device("meta"):
        return build(network, image_size)
