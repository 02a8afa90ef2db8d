"""How far the pixels that models get lie from those of the libraries they come from.

    python -m tests.contracts.deviations FOLDER

In: a folder of photographs. Out: a table, one line for each rule: the mean of |difference| in
levels of 255 over all photographs, the worst photograph, the worst pixel, and the same with the
other rounding, so that it is seen what choosing it is worth.
"""

import dataclasses
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from contracts.images.decoding import read
from contracts.images.folders import find_images
from contracts.resizing import ResizeRule
from export.formats.timm_preprocessing import preprocessing
from tests.contracts import oracles
from tests.contracts.oracles import Levels

Oracle = Callable[[Image.Image], Levels]


@dataclasses.dataclass(frozen=True)
class Line:
    """One rule as `export` states it, and what it must agree with."""

    name: str
    rule: ResizeRule
    oracle: Oracle


def timm(name: str, family: str, size: int, crop: float, interpolation: str) -> Line:
    """A model of timm by its configuration."""
    config = {"crop_pct": crop, "interpolation": interpolation}
    rule = preprocessing(config, family, size, size).at(size)
    return Line(
        f"timm, {name}: {size} at {crop:g}, {interpolation}",
        rule,
        lambda image: oracles.timm_eval(image, size, crop, interpolation),
    )


def small(size: int, scale: int, interpolation: str, *, antialias: bool) -> Line:
    """big_vision's evaluation, as `--resize shortest` states it."""
    rule = ResizeRule(size, size, "shortest", interpolation, antialias, size / scale)
    how = "antialiased" if antialias else "not antialiased"
    return Line(
        f"TensorFlow, resize_small({scale}) and crop {size}, {interpolation}, {how}",
        rule,
        lambda image: oracles.resmall_crop(image, size, scale, interpolation, antialias=antialias),
    )


def transformers(name: str, size: int, scale: int, interpolation: str) -> Line:
    """A model of transformers whose processor brings the short side to a length and cuts."""
    rule = ResizeRule(size, size, "shortest", interpolation, True, size / scale, "transformers")
    return Line(
        f"transformers, {name}: short side to {scale}, crop {size}, {interpolation}",
        rule,
        lambda image: oracles.transformers_eval(image, size, scale, interpolation),
    )


def square(size: int, *, antialias: bool) -> Line:
    """The default of `.npz`."""
    how = "antialiased" if antialias else "not antialiased"
    return Line(
        f"TensorFlow, straight to {size}, bilinear, {how}",
        ResizeRule(size, size, antialias=antialias),
        lambda image: oracles.official_eval(image, size, antialias=antialias),
    )


LINES = (
    timm("ViT", "vit", 224, 0.9, "bicubic"),
    timm("ViT at 384", "vit", 384, 1.0, "bicubic"),
    timm("Mixer", "mixer", 224, 0.875, "bicubic"),
    timm("Mixer of MIIL", "mixer", 224, 0.875, "bilinear"),
    timm("BiT", "bit", 448, 1.0, "bilinear"),
    timm("BiT distilled", "bit", 160, 0.875, "bilinear"),
    timm("of 0.95", "vit", 224, 0.95, "bicubic"),
    timm("of few pixels", "mixer", 32, 1.0, "bilinear"),
    transformers("BiT", 448, 448, "bilinear"),
    transformers("others", 224, 256, "bicubic"),
    square(224, antialias=True),
    square(224, antialias=False),
    small(224, 256, "bilinear", antialias=False),
    small(224, 256, "bilinear", antialias=True),
    small(224, 256, "bicubic", antialias=True),
)


@dataclasses.dataclass(frozen=True)
class Deviation:
    """Of one rule over all photographs, in levels of 255."""

    mean: float
    worst_image: float
    worst_pixel: float
    above_half: int  # photographs whose mean is above 0.5


def deviation(rule: ResizeRule, oracle: Oracle, photographs: Iterable[bytes]) -> Deviation:
    """What the rule gives of each encoded photograph, against the oracle on Pillow's own pixels."""
    means, pixels = [], 0.0
    for data in photographs:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        apart = np.abs(read(data, rule) - np.clip(oracle(image), 0, 255))
        means.append(float(apart.mean()))
        pixels = max(pixels, float(apart.max()))
    above = sum(mean > 0.5 for mean in means)
    return Deviation(float(np.mean(means)), max(means), pixels, above)


def other_rounding(rule: ResizeRule) -> ResizeRule:
    """The same rule with the arithmetic of the other library."""
    other = "tensorflow" if rule.rounding == "torchvision" else "torchvision"
    return dataclasses.replace(rule, rounding=other)


def table(photographs: Sequence[bytes]) -> str:
    """Markdown."""
    rows = [
        "| rule | mean | worst photograph | worst pixel | above 0.5 | with the other rounding: "
        "worst photograph | above 0.5 |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in LINES:
        own = deviation(line.rule, line.oracle, photographs)
        other = deviation(other_rounding(line.rule), line.oracle, photographs)
        rows.append(
            f"| {line.name} | {own.mean:.3f} | {own.worst_image:.3f} | {own.worst_pixel:.1f} | "
            f"{own.above_half} | {other.worst_image:.2f} | {other.above_half} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    files, _ = find_images(Path(sys.argv[1]))
    print(f"{len(files)} photographs\n\n{table([file.read_bytes() for file in files])}")
