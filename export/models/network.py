"""The facts about a network that are needed to build its module.

In: sizes, as they are read off a checkpoint, and a `Flavour`: how the code that trained the weights
computes, which no array shows. Out: a `Network`, which `export.models.build` turns into a module.
"""

import dataclasses
from typing import Literal

from contracts.variants import VARIANTS, Sizes

# "tanh" and "erf" are two forms of GELU; "quick" is CLIP's replacement, x · sigmoid(1.702 x).
Gelu = Literal["tanh", "erf", "quick"]
# How a ViT's positions are resized to another grid: "corners" as the published code does, by
# scipy.ndimage.zoom(order=1); "bicubic" as transformers does; "smooth" (antialiased) as timm does.
Grid = Literal["corners", "bicubic", "smooth"]
# The input of the classifier: the class token, or the mean over the tokens of the patches.
Pool = Literal["token", "mean"]


@dataclasses.dataclass(frozen=True)
class Flavour:
    """How a library computes, where the arrays do not show it; defaults: the published code."""

    gelu: Gelu = "tanh"
    layer_norm_epsilon: float = 1e-6
    standardization_epsilon: float = 1e-10  # of a BiT's weights
    # The other fields concern a ViT. None: as in the published code, which depends on whether there
    # is a class token.
    pool: Pool | None = None
    prefix_tokens: int | None = None  # tokens before those of the patches: class token, registers
    pre_norm: bool = False  # a LayerNorm before the first block
    norm_after_pooling: bool = False  # the last LayerNorm comes after the pooling, not before it
    grid: Grid = "corners"


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of one of the families."""

    sizes: Sizes
    image_size: int  # pixels per side of the weights; the usual size for a BiT, which takes any
    num_classes: int
    flavour: Flavour = Flavour()

    @property
    def family(self) -> str:
        """ "mixer", "vit" or "bit"."""
        return self.sizes.family


def network_of(variant: str) -> Network:
    """The network of one row in the table of variants."""
    row = VARIANTS[variant]
    return Network(row.sizes, row.image_size, row.num_classes)
