"""What each variant costs: parameters and floating-point operations per image.

In: the table of variants. Out: rows, counted on the modules themselves. Nothing is allocated: the
modules are on PyTorch's meta device.
"""

import dataclasses

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from contracts.variants import VARIANTS
from export.models import build, network_of


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of one variant at its own image size."""

    variant: str
    image_size: int  # pixels per side
    parameters: int
    flops: int  # per image; a multiply-add counts as two


def variant_costs() -> list[Cost]:
    """A row for every variant of every family."""
    costs = []
    for name, row in VARIANTS.items():
        with torch.device("meta"):
            module = build(network_of(name), row.image_size)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        flops = count_flops(module, row.image_size)
        costs.append(Cost(name, row.image_size, parameters, flops))
    return costs


def count_flops(module: nn.Module, image_size: int) -> int:
    """Of the matrix products and convolutions for one image: all but about 1 % of the work."""
    shapes = {name: parameter.to("meta") for name, parameter in module.named_parameters()}
    image = torch.empty(1, image_size, image_size, 3, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(module, shapes, (image,))
    flops: int = counter.get_total_flops()
    return flops
