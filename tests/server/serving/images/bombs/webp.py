"""Expensive WebPs (RFC 9649)."""

from collections.abc import Iterator

from PIL import Image

from tests.server.serving.images.bombs.parts import (
    Generator,
    encoded,
    largest_that_fits,
    noise,
    side_of,
)


def webps(pixels: int) -> Iterator[tuple[str, Generator]]:
    side = min(16_376, side_of(pixels))
    tall = 16_383
    narrow = min(16_383, max(1, pixels // tall))

    def flat(width: int, height: int, mode: str, **options: object) -> bytes:
        colour = (1, 2, 3, 77)[: len(mode)]
        return encoded(Image.new(mode, (width, height), colour), "WEBP", method=0, **options)

    def animated() -> bytes:
        frames = [Image.new("RGBA", (side, side), (n, 2, 3, 77)) for n in range(2)]
        return encoded(
            frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, method=0
        )

    yield "webp lossless, flat", lambda: flat(side, side, "RGBA", lossless=True, quality=0)
    yield "webp lossless, flat RGB", lambda: flat(side, side, "RGB", lossless=True, quality=0)
    yield "webp lossless, narrow", lambda: flat(narrow, tall, "RGBA", lossless=True, quality=0)
    yield "webp lossy, flat", lambda: flat(side, side, "RGB", quality=50)
    yield "webp lossy with alpha", lambda: flat(side, side, "RGBA", quality=50)
    yield "webp of two frames", animated
    yield (
        "webp lossless grain",
        lambda: largest_that_fits(
            lambda s: encoded(noise(s, "RGBA"), "WEBP", lossless=True, quality=0, method=0), side
        ),
    )
    yield (
        "webp lossy grain",
        lambda: largest_that_fits(lambda s: encoded(noise(s), "WEBP", quality=60, method=0), side),
    )
