"""Expensive GIFs (GIF89a)."""

import struct
from collections.abc import Iterator

from PIL import Image

from tests.server.serving.images.bombs.parts import (
    Generator,
    encoded,
    largest_that_fits,
    noise,
    side_of,
)


def gifs(pixels: int) -> Iterator[tuple[str, Generator]]:
    side = side_of(pixels)

    def flat(**options: object) -> bytes:
        return encoded(Image.new("P", (side, side), 3), "GIF", **options)

    def small_frame() -> bytes:
        """A frame of one pixel on a screen of the whole size."""
        screen = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
        control = b"!\xf9\x04\1\0\0\1\0"
        frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
        return screen + control + frame + b";"

    yield "gif flat", flat
    yield "gif transparent", lambda: flat(transparency=3)
    yield "gif interlaced", lambda: flat(interlace=1)
    yield "gif small frame", small_frame
    yield (
        "gif grain",
        lambda: largest_that_fits(lambda s: encoded(noise(s, "L"), "GIF"), side),
    )
