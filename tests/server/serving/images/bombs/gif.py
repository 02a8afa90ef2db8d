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

    def many_frames(count: int) -> bytes:
        """A first frame of the whole size, then many of one pixel."""
        frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
        return flat()[:-1] + frame * count + b";"

    def cleared(side: int) -> bytes:
        """A code that forgets the table before each pixel: uncompressed, 9 bits and 9 bits."""
        screen = b"GIF89a" + struct.pack("<HHBBB", side, side, 0xF7, 0, 0) + bytes(3 * 256)
        pair = 256 | 5 << 9
        eight = sum(pair << 18 * number for number in range(4)).to_bytes(9, "little")
        data = (eight * (side * side // 4 + 1))[: side * side * 18 // 8] + b"\x01\x01"
        blocks = b"".join(
            bytes((len(data[at : at + 255]),)) + data[at : at + 255]
            for at in range(0, len(data), 255)
        )
        return (
            screen + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x08" + blocks + b"\0;"
        )

    yield "gif flat", flat
    yield "gif of a million frames", lambda: many_frames(10**6)
    yield "gif of clear codes", lambda: cleared(min(side, 3760))
    yield "gif transparent", lambda: flat(transparency=3)
    yield "gif interlaced", lambda: flat(interlace=1)
    yield "gif small frame", small_frame
    yield (
        "gif grain",
        lambda: largest_that_fits(lambda s: encoded(noise(s, "L"), "GIF"), side),
    )
