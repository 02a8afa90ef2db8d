"""How an image becomes a model's input: a property of the weights, not of a server.

In: the statements of a checkpoint's publisher. Out: a `Preprocessing`, which the gateway applies,
and a `Normalization`, which is part of the graph.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from contracts.published import CheckpointError
from contracts.resizing import ResizeRule

Resize = Literal["squash", "shortest"]
Interpolation = Literal["bilinear", "bicubic"]
Rounding = Literal["tensorflow", "torchvision", "transformers"]
Activation = Literal["softmax", "sigmoid"]
# One number for each of the channels red, green and blue.
Channels = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Resizing and cropping only; pixels are normalised in the graph.

    `resize` is "squash" (straight to a square, ignoring the aspect) or "shortest" (the short side,
    keeping the aspect), to round(image_size / crop_fraction); the central square is then cut out.
    `rounding` is the arithmetic of the library that the weights were evaluated with.
    """

    resize: Resize = "squash"
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    crop_fraction: float = 1.0
    rounding: Rounding = "tensorflow"

    def at(self, image_size: int) -> ResizeRule:
        """The rule for square inputs of `image_size` pixels per side."""
        return ResizeRule(image_size, image_size, **dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Normalization:
    """(pixel / 255 − mean) / std, per channel, in the notation of torchvision and timm."""

    mean: Channels = (0.5, 0.5, 0.5)
    std: Channels = (0.5, 0.5, 0.5)

    def constants(self) -> tuple[Channels, Channels]:
        """The subtrahend and the divisor for a pixel of 0 to 255."""
        return _times_255(self.mean), _times_255(self.std)


def _times_255(values: Channels) -> Channels:
    red, green, blue = values
    return 255 * red, 255 * green, 255 * blue


# The rule of the published files: resize directly to a square, scale pixels to [-1, 1].
USUAL_PREPROCESSING, USUAL_NORMALIZATION = Preprocessing(), Normalization()


def channels(what: str, values: object) -> Channels:
    """Three finite numbers, above 0 if `what` ends in "std". Raises CheckpointError."""
    lowest = 1e-6 if what.endswith("std") else -math.inf
    if (
        isinstance(values, Sequence)
        and len(values) == 3
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)
        and all(math.isfinite(each) and each >= lowest for each in values)
    ):
        red, green, blue = (float(each) for each in values)
        return red, green, blue
    above = " above 0" if what.endswith("std") else ""
    raise CheckpointError(f"{what}: expected three numbers{above}, found {values!r}")
