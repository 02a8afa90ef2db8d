"""How a model wants its images resized, and the resizing.

In: an RGB image of any size and a `ResizeRule`, which a model states in the `parameters` of its
config.pbtxt. Out: uint8[H, W, 3] of the model's input size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
# Left, top, right, bottom of a part of an image, in its pixels.
Box = tuple[float, float, float, float]

ROUNDINGS = ("tensorflow", "torchvision", "transformers")
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class ResizeRule:
    """One model's way from an image to its input.

    height, width: of the model's input, in pixels.
    resize: "squash" goes straight to the target and ignores the aspect; "shortest" brings the
        short side to the target and keeps the aspect.
    interpolation: "bilinear" or "bicubic".
    antialias: whether the filter widens when it shrinks an image. False is TensorFlow's default
        (`tf.image.resize`, half-pixel centres), which Google's own evaluations use.
    crop_fraction: resize to round(size / crop_fraction), then cut the central height × width.
    rounding: the library whose arithmetic rounds the long side and the start of the cut (half of
        the gap) to whole numbers. "tensorflow" rounds the long side to the nearest and the start
        down; "torchvision", which timm uses, rounds the long side down and the start to the
        nearest, a half to the even number; "transformers" rounds both down.
    """

    height: int
    width: int
    resize: str = "squash"
    interpolation: str = "bilinear"
    antialias: bool = True
    crop_fraction: float = 1.0
    rounding: str = "tensorflow"

    @classmethod
    def from_parameters(cls, height: int, width: int, parameters: Mapping[str, str]) -> Self:
        """The rule that config.pbtxt states; a missing parameter keeps its default.

        Raises `ValueError` that names the parameter, what was found and what would be right.
        """

        def one_of(name: str, default: str, *allowed: str) -> str:
            value = parameters.get(name, default)
            if value not in allowed:
                raise ValueError(f"parameter {name} is {value!r}, expected {' or '.join(allowed)}")
            return value

        fraction = parameters.get("crop_fraction", "1.0")
        try:
            crop_fraction = float(fraction)
        except ValueError:
            crop_fraction = 0.0
        # Below a tenth the image would be blown up to a hundred times the model's input.
        if not 0.1 <= crop_fraction <= 1.0:
            raise ValueError(f"parameter crop_fraction is {fraction!r}, expected 0.1 to 1.0")
        rule = cls(
            height,
            width,
            one_of("resize", "squash", "squash", "shortest"),
            one_of("interpolation", "bilinear", *FILTERS),
            one_of("antialias", "true", "true", "false") == "true",
            crop_fraction,
            one_of("rounding", "tensorflow", *ROUNDINGS),
        )
        if not rule.antialias and rule.interpolation != "bilinear":
            raise ValueError("antialias false is only defined here for interpolation bilinear")
        return rule

    def target(self, width: float, height: float) -> tuple[int, int]:
        """Width and height that an image of `width` × `height` is resized to, before the crop."""
        to_width = round(self.width / self.crop_fraction)
        to_height = round(self.height / self.crop_fraction)
        if self.resize == "squash":
            return to_width, to_height
        if self.rounding != "tensorflow":
            if to_width * height >= to_height * width:
                return to_width, max(to_height, int(to_width * height / width))
            return max(to_width, int(to_height * width / height)), to_height
        scale = max(to_width / width, to_height / height)
        return max(to_width, round(width * scale)), max(to_height, round(height * scale))

    def parameters(self) -> dict[str, str]:
        """The parameters of config.pbtxt for this rule; `from_parameters` is the inverse."""
        return {
            "resize": self.resize,
            "interpolation": self.interpolation,
            "antialias": "true" if self.antialias else "false",
            "crop_fraction": repr(self.crop_fraction),
            "rounding": self.rounding,
        }

    def apply(self, image: Image.Image, box: Box | None = None) -> Pixels:
        """The RGB image as contiguous uint8[height, width, 3].

        `box` is the part that the image covers, None for all of it: after decoding at a fraction of
        the size the last column and row can lie half beyond the edge.
        """
        x, y, right, bottom = box or (0.0, 0.0, *image.size)
        width, height = right - x, bottom - y
        to_width, to_height = self.target(width, height)
        left, top = self._start(to_width - self.width), self._start(to_height - self.height)
        if not self.antialias:
            rows = np.arange(top, top + self.height)
            columns = np.arange(left, left + self.width)
            return _sample(np.asarray(image), to_height, to_width, rows, columns)
        if image.size == (to_width, to_height):
            image = image.crop((left, top, left + self.width, top + self.height))
        else:
            # Only the cut is computed, which is a tiny part of a very long image. The filter still
            # reads pixels beyond the box, so the result equals that of resizing the whole image and
            # then cutting.
            across, down = width / to_width, height / to_height
            part = (
                x + left * across,
                y + top * down,
                # Rounding must not carry the box over the edge.
                min(x + (left + self.width) * across, right),
                min(y + (top + self.height) * down, bottom),
            )
            whole, cut = (to_width, to_height), (self.width, self.height)
            image = _resized(image, part, whole, cut, FILTERS[self.interpolation])
        return np.ascontiguousarray(image, dtype=np.uint8)

    def _start(self, gap: int) -> int:
        """Where the cut begins, on a side that is `gap` longer than what is kept of it."""
        return round(gap / 2) if self.rounding == "torchvision" else gap // 2


def _resized(
    image: Image.Image,
    part: Box,
    whole: tuple[int, int],
    cut: tuple[int, int],
    filter_: Image.Resampling,
) -> Image.Image:
    """`part` of the image, resized to `cut`, exactly as it looks in the image resized to `whole`.

    Pillow rounds to whole levels between its two passes, so the passes must have the order that the
    whole resize has; else the result
    loses a quarter of a level in the mean.
    """
    vertical = _is_vertical_first(image.size, whole)
    if vertical == _is_vertical_first(image.size, cut):
        return image.resize(cut, filter_, part)
    left, top, right, bottom = part
    # The filters reach over two source pixels, or over two pixels of the result if they shrink.
    reach_x = 2 + 2 * math.ceil(max(1.0, (right - left) / cut[0]))
    reach_y = 2 + 2 * math.ceil(max(1.0, (bottom - top) / cut[1]))
    x, y = max(0, math.floor(left) - reach_x), max(0, math.floor(top) - reach_y)
    far_x = min(image.width, math.ceil(right) + reach_x)
    far_y = min(image.height, math.ceil(bottom) + reach_y)
    if vertical:
        strip = image.crop((x, 0, far_x, image.height))
        strip = strip.resize((strip.width, cut[1]), filter_, (0, top, strip.width, bottom))
        return strip.resize(cut, filter_, (left - x, 0, right - x, cut[1]))
    strip = image.crop((0, y, image.width, far_y))
    strip = strip.resize((cut[0], strip.height), filter_, (left, 0, right, strip.height))
    return strip.resize(cut, filter_, (0, top - y, cut[0], bottom - y))


def _is_vertical_first(size: tuple[int, int], to: tuple[int, int]) -> bool:
    """Whether Pillow 13 begins with the vertical pass; older versions begin with the horizontal."""
    return size[1] - to[1] > max(0, 2 * (size[0] - to[0]))


def _sample(
    pixels: Pixels,
    to_height: int,
    to_width: int,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
) -> Pixels:
    """Bilinear samples at half-pixel centres, as `tf.image.resize(antialias=False)` takes them.

    `rows` and `columns` select from the to_height × to_width result. Pillow's affine transform
    takes the same samples but cuts their fractions off, half a level too dark; here they are
    rounded.
    """
    y0, y1, wy = _neighbours(rows, pixels.shape[0], to_height)
    x0, x1, wx = _neighbours(columns, pixels.shape[1], to_width)
    wx, wy = wx[:, None], wy[:, None, None]
    upper, lower = pixels[y0], pixels[y1]
    above = upper.take(x0, axis=1) * (1 - wx) + upper.take(x1, axis=1) * wx
    below = lower.take(x0, axis=1) * (1 - wx) + lower.take(x1, axis=1) * wx
    return np.rint(above + (below - above) * wy).astype(np.uint8)


def _neighbours(
    positions: npt.NDArray[np.int64], size: int, to_size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The two source indices around each output position, and the weight of the second."""
    centres = (positions + 0.5) * (size / to_size) - 0.5
    floor = np.floor(centres)
    first = np.clip(floor, 0, size - 1).astype(np.int64)
    second = np.clip(floor + 1, 0, size - 1).astype(np.int64)
    return first, second, (centres - floor).astype(np.float32)
