"""Files of the whole size that cameras, phones and tools write, to compare the bombs with."""

import numpy as np
from PIL import Image

from tests.server.serving.images.bombs.parts import Generator, encoded, side_of
from tests.server.serving.images.bombs.tiff import tiff_of_one


def honest(pixels: int) -> dict[str, Generator]:
    """What cameras, phones and tools write: a photograph of the whole size in every format."""
    side = side_of(pixels, 16)

    def photo(mode: str = "RGB") -> Image.Image:
        rng = np.random.default_rng(1)
        small = rng.integers(0, 256, (24, 24, 3), np.uint8)
        image = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
        grain = np.tile(
            rng.integers(-9, 10, (512, 512, 3), np.int16), (side // 512 + 1,) * 2 + (1,)
        )
        pixels = np.asarray(image, np.int16) + grain[:side, :side]
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)

    return {
        "jpeg": lambda: encoded(photo(), "JPEG", quality=85),
        "jpeg progressive": lambda: encoded(photo(), "JPEG", quality=85, progressive=True),
        "jpeg progressive 4:4:4": lambda: encoded(
            photo(), "JPEG", quality=90, progressive=True, subsampling="4:4:4"
        ),
        "jpeg grey": lambda: encoded(photo("L"), "JPEG", quality=90),
        "png palette": lambda: encoded(photo("P"), "PNG", compress_level=1),
        "webp": lambda: encoded(photo(), "WEBP", quality=70, method=0),
        "gif": lambda: encoded(photo("P"), "GIF"),
        "tiff JPEG": lambda: tiff_of_one(photo(), "jpeg", quality=85),
        "tiff group 4": lambda: tiff_of_one(photo("1"), "group4"),
        "avif": lambda: encoded(photo(), "AVIF", speed=10, quality=50),
    }
