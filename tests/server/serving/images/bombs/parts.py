"""What the writers of every format share: the largest file, sizes of images, and noise."""

import functools
import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

LARGEST = 32 * 2**20  # bytes of a file: --max-body-bytes
Generator = Callable[[], bytes]


def side_of(pixels: int, multiple: int = 8) -> int:
    """The side of the largest square within so many pixels whose side is such a multiple."""
    return max(multiple, math.isqrt(pixels) // multiple * multiple)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@functools.lru_cache(maxsize=2)
def noise(side: int, mode: str = "RGB") -> Image.Image:
    """Grain that no encoder can predict."""
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    tile = np.random.default_rng(5).integers(0, 256, (256, 256, channels), np.uint8)
    many = -(-side // 256)
    pixels = np.tile(tile, (many, many, 1))[:side, :side]
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)


def largest_that_fits(make: Callable[[int], bytes], side: int) -> bytes:
    """The file of the largest side, of a few, that is not larger than a body may be."""
    for factor in (1.0, 0.8, 0.65, 0.5, 0.35, 0.25):
        data = make(int(side * factor) // 8 * 8)
        if len(data) <= LARGEST:
            return data
    raise AssertionError("nothing fits")
