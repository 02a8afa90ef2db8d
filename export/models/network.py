"""What has to be known of a network before its module can be built.

In: sizes, as they are read off a checkpoint, and what no array says: how the code that trained the
weights computes. Out: a `Network`, which `export.models.build` turns into a module.
"""

import dataclasses
from typing import Literal

from contracts.variants import VARIANTS, Sizes

# "tanh" and "erf" are two forms of GELU; "quick" is x · sigmoid(1.702 x), which CLIP has instead.
Gelu = Literal["tanh", "erf", "quick"]
# How a ViT's positions are resized to another grid: "corners" as scipy.ndimage.zoom(order=1) does,
# which the published code has; "bicubic" as transformers does, "smooth" (antialiased) as timm.
Grid = Literal["corners", "bicubic", "smooth"]
# What of the tokens is classified: the class token, or the mean over those of the patches.
Pool = Literal["token", "mean"]


@dataclasses.dataclass(frozen=True)
class Flavour:
    """How a library computes what the arrays do not say; the defaults are the published code's."""

    gelu: Gelu = "tanh"
    layer_norm_epsilon: float = 1e-6
    standardization_epsilon: float = 1e-10  # of a BiT's weights
    # The rest is of a ViT. None: as the published code does with a class token, or without one.
    pool: Pool | None = None
    prefix_tokens: int | None = None  # before those of the patches: the class token, registers
    pre_norm: bool = False  # a LayerNorm before the first block
    norm_after_pooling: bool = False  # the last LayerNorm, that else comes before
    grid: Grid = "corners"


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of one of the families."""

    sizes: Sizes
    image_size: int  # pixels per side, of the weights; for a BiT, which takes any, the usual one
    num_classes: int
    flavour: Flavour = Flavour()

    @property
    def family(self) -> str:
        """ "mixer", "vit" or "bit"."""
        return self.sizes.family


def network_of(variant: str) -> Network:
    """The network of a row of the table of variants."""
    row = VARIANTS[variant]
    return Network(row.sizes, row.image_size, row.num_classes)
