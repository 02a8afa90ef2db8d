"""Expensive AVIFs (AV1 Image File Format)."""

from collections.abc import Iterator

from PIL import Image

from tests.server.serving.images.bombs.container import coded, grid, of_another_size
from tests.server.serving.images.bombs.parts import (
    Generator,
    encoded,
    largest_that_fits,
    noise,
    side_of,
)


def avifs(pixels: int) -> Iterator[tuple[str, Generator]]:
    side = side_of(pixels)

    def flat(mode: str, **options: object) -> bytes:
        colour = (1, 2, 3, 77)[: len(mode)]
        return encoded(Image.new(mode, (side, side), colour), "AVIF", speed=10, **options)

    yield "avif flat 4:2:0", lambda: flat("RGB", quality=50)
    yield "avif flat 4:4:4", lambda: flat("RGB", quality=50, subsampling="4:4:4")
    yield "avif flat with alpha", lambda: flat("RGBA", quality=50)
    yield "avif lossless", lambda: flat("RGB", quality=100, subsampling="4:4:4")
    yield "avif of tiles of 64", lambda: of_tiles("AVIF", 64, side)
    yield "avif of tiles of 512", lambda: of_tiles("AVIF", 512, side)
    yield (
        "avif larger than it says",
        lambda: of_another_size(coded(flat("RGB", quality=50)), 64, 64),
    )
    yield "avif of two frames", lambda: flat(
        "RGB", save_all=True, append_images=[Image.new("RGB", (side, side))])  # fmt: skip
    yield (
        "avif grain",
        lambda: largest_that_fits(
            lambda s: encoded(noise(s), "AVIF", speed=10, quality=20, max_threads=2), side
        ),
    )


def of_tiles(kind: str, tile: int, side: int) -> bytes:
    """One flat tile, shown as often as it fits."""
    across = min(255, max(1, side // tile))
    image = Image.new("RGB", (tile, tile), (1, 2, 3))
    return grid(coded(encoded(image, kind, quality=50)), tile, across, across)
