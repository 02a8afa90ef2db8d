"""`--list-pretrained`: the published weights that are known by name, as a table.

In: the catalogue. Out: lines on stdout; the name is the last column, since Google's are long.
"""

import dataclasses
import functools

import torch

from export.models import build, network_of
from export.pretrained.catalogue import LICENCE, catalogue
from export.progress import step


@functools.cache
def megabytes(variant: str, classes: int) -> float:
    """The size of the weights in float32, computed from the variant without a download."""
    network = dataclasses.replace(network_of(variant), num_classes=classes)
    with torch.device("meta"):
        module = build(network, network.image_size)
    return sum(parameter.numel() for parameter in module.parameters()) * 4 / 1e6


def print_pretrained() -> None:
    """Print one line for each name."""
    with step("counting"):
        sizes = {each.name: megabytes(each.variant, each.classes) for each in catalogue().values()}
    row = "{:>7}  {:>5}  {:>5}  {:<10}  {:>6}  {:<46}  {}"
    print(row.format("classes", "input", "MB", "licence", "top-1", "resize rule", "name"))
    for name, each in catalogue().items():
        top1 = "–" if each.top1 is None else f"{each.top1:.2f}"
        size = f"{sizes[name]:.0f}"
        print(row.format(each.classes, each.image_size, size, LICENCE, top1, each.rule, name))
