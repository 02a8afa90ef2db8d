"""What has to be known of a network before its module can be built.

In: sizes, as they are read off a checkpoint, and what no array says: how the code that trained the
weights computes. Out: a `Network`, which `export.models.build` turns into a module.
"""

import dataclasses
from typing import Literal

from contracts.variants import VARIANTS, Sizes

Gelu = Literal["tanh", "erf"]


@dataclasses.dataclass(frozen=True)
class Flavour:
    """How a library computes what the arrays do not say; the defaults are the published code's."""

    gelu: Gelu = "tanh"
    standardization_epsilon: float = 1e-10  # of a BiT's weights


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
