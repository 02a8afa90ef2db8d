"""Expensive BMPs."""

import math
import struct
from collections.abc import Iterator

from tests.server.serving.images.bombs.parts import LARGEST, Generator, side_of


def bmp(
    width: int, height: int, bits: int, compression: int = 0, data: bytes | None = None
) -> bytes:
    """A BMP with a BITMAPINFOHEADER, of zeros unless there is data."""
    colours = 4 << bits if bits <= 8 else 0
    size = -(-width * bits // 32) * 4 * height
    body = bytes(size) if data is None else data
    start = 54 + colours
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, 0, 0
    )
    return (
        b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + bytes(colours) + body
    )


def bmps(pixels: int) -> Iterator[tuple[str, Generator]]:
    side = side_of(pixels)
    room = LARGEST - 2000

    yield "bmp of 1 bit", lambda: bmp(side, side, 1)
    yield "bmp of 4 bits", lambda: bmp(side, side, 4)
    yield "bmp column of 1 bit", lambda: bmp(1, min(pixels, room // 4), 1)
    yield "bmp column of 32 bits", lambda: bmp(1, min(pixels, room // 4), 32)
    yield (
        "bmp RGB",
        lambda: bmp(min(side, math.isqrt(room // 4)), min(side, math.isqrt(room // 4)), 24),
    )
    yield "bmp of 16 bits", lambda: bmp(min(side, 4000), min(side, 4000), 16)
    yield "bmp of 32 bits", lambda: bmp(min(side, 2800), min(side, 2800), 32)
    yield "bmp runs of the whole size", lambda: bmp(side, side, 8, 1, b"\0\1")
    yield "bmp runs of 4 bits", lambda: bmp(2048, 2032, 4, 2, b"\0\1")
    yield "bmp runs of one pixel", lambda: bmp(1184, 1184, 8, 1, b"\1\7" * 1184**2)
    yield "bmp runs", lambda: bmp(2048, 2032, 8, 1, b"\0\1")
