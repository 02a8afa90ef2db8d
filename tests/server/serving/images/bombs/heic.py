"""Expensive HEICs (ISO/IEC 23008-12)."""

from collections.abc import Iterator
from importlib.util import find_spec

from PIL import Image

from tests.server.serving.images.bombs.avif import of_tiles
from tests.server.serving.images.bombs.container import coded, of_another_size
from tests.server.serving.images.bombs.parts import (
    Generator,
    encoded,
    largest_that_fits,
    noise,
    side_of,
)


def heics(pixels: int) -> Iterator[tuple[str, Generator]]:
    """Nothing where pillow-heif, which is an extra, is missing."""
    if find_spec("pillow_heif") is None:
        return
    import pillow_heif  # noqa: PLC0415 - an extra

    pillow_heif.register_heif_opener()
    side = side_of(pixels, 64)

    def flat(mode: str, chroma: int = 420) -> bytes:
        colour = (1, 2, 3, 77)[: len(mode)]
        image = Image.new(mode, (side, side), colour)
        return encoded(image, "HEIF", quality=50, chroma=chroma, enc_params={"preset": "ultrafast"})

    yield "heic flat 4:2:0", lambda: flat("RGB")
    yield "heic flat 4:4:4", lambda: flat("RGB", 444)
    yield "heic flat with alpha", lambda: flat("RGBA")
    yield "heic of tiles of 64", lambda: of_tiles("HEIF", 64, side)
    yield "heic of tiles of 512", lambda: of_tiles("HEIF", 512, side)
    yield "heic larger than it says", lambda: of_another_size(coded(flat("RGB")), 64, 64)
    yield (
        "heic grain",
        lambda: largest_that_fits(
            lambda s: encoded(
                noise(s // 64 * 64), "HEIF", quality=30, enc_params={"preset": "ultrafast"}
            ),
            side,
        ),
    )
