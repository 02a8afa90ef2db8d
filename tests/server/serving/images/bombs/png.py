"""Expensive PNGs (W3C PNG, third edition)."""

import struct
import zlib
from collections.abc import Iterator
from functools import partial

import numpy as np

from tests.server.serving.images.bombs.parts import (
    Generator,
    encoded,
    largest_that_fits,
    noise,
    side_of,
)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    bits: int,
    colour: int,
    *,
    filtered: int = 0,
    before: bytes = b"",
    interlaced: bool = False,
    chunks: int = 1,
    level: int = 9,
) -> bytes:
    """A PNG of zeros, whose rows all have the filter `filtered`."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = [(width, height)]
    if interlaced:
        steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
                 (0, 1, 1, 2))  # fmt: skip
        passes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in steps]
    packer = zlib.compressobj(level)
    data = b""
    for across, down in passes:
        if across <= 0 or down <= 0:
            continue
        row = bytes((filtered,)) + bytes(-(-across * samples * bits // 8))
        step = max(1, 10**6 // len(row))
        for at in range(0, down, step):
            data += packer.compress(row * min(step, down - at))
    data += packer.flush()
    size = -(-len(data) // chunks)
    parts = [chunk(b"IDAT", data[at : at + size]) for at in range(0, len(data), size)]
    start = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", start)
        + before
        + b"".join(parts)
        + chunk(b"IEND", b"")
    )


def png_of_tables(width: int, height: int) -> bytes:
    """RGBA rows whose deflate stream begins new tables every few bytes."""
    rng = np.random.default_rng(7)
    rows = rng.integers(0, 25, (height, 1 + 4 * width), np.uint8)
    rows[:, 0] = 4
    packer = zlib.compressobj(9, memLevel=1)
    plain = rows.tobytes()
    step = 600
    parts = []
    for at in range(0, len(plain), step):
        parts.append(packer.compress(plain[at : at + step]) + packer.flush(zlib.Z_FULL_FLUSH))
    data = b"".join(parts) + packer.flush()
    start = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def deflated_zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    step = bytes(2**20)
    return b"".join(packer.compress(step) for _ in range(count >> 20)) + packer.flush()


def exif_of_fractions(count: int) -> bytes:
    """An orientation that is many fractions, which Pillow reads one by one in Python."""
    start = struct.pack("<4sIHHHIII", b"II*\0", 8, 1, 0x0112, 5, count, 26, 0)
    return chunk(b"eXIf", start + struct.pack("<I", 1) * (2 * count))


def pngs(pixels: int) -> Iterator[tuple[str, Generator]]:
    side = side_of(pixels)
    palette = chunk(b"PLTE", bytes(range(256)) * 3)
    clear = chunk(b"tRNS", bytes(range(256)))
    key = chunk(b"tRNS", bytes(6))
    grey_key = chunk(b"tRNS", bytes(2))
    squeezed = b"a\0\0" + zlib.compress(bytes(2**20 - 100), 9)
    texts = chunk(b"zTXt", squeezed) * 31
    for name, colour in (("grey", 0), ("grey and alpha", 4), ("RGB", 2), ("RGBA", 6)):
        yield f"png column of {name}", partial(png, 1, pixels, 8, colour, filtered=4)
    yield "png row of RGBA", lambda: png(pixels, 1, 8, 6, filtered=4)
    yield "png 2 pixels wide, interlaced", lambda: png(2, pixels // 2, 8, 6, interlaced=True)
    yield "png column of 1 bit", lambda: png(1, pixels, 1, 0)
    yield "png 8 pixels wide", lambda: png(8, pixels // 8, 8, 6, filtered=4)
    yield "png 64 pixels wide", lambda: png(64, pixels // 64, 16, 6, filtered=4)
    yield "png of 1 bit", lambda: png(side, side, 1, 0)
    yield "png palette and alpha", lambda: png(side, side, 8, 3, before=palette + clear)
    yield "png palette of 1 bit and alpha", lambda: png(side, side, 1, 3, before=palette + clear)
    yield "png grey with a key", lambda: png(side, side, 8, 0, before=grey_key)
    yield "png grey 16", lambda: png(side, side, 16, 0, filtered=4)
    yield "png grey 16 with a key", lambda: png(side, side, 16, 0, filtered=4, before=grey_key)
    yield "png grey and alpha 16", lambda: png(side, side, 16, 4, filtered=4)
    yield "png RGB Paeth", lambda: png(side, side, 8, 2, filtered=4)
    yield "png RGBA Paeth", lambda: png(side, side, 8, 6, filtered=4)
    yield "png RGB 16 average", lambda: png(side, side, 16, 2, filtered=3)
    yield "png RGB 16 Paeth with a key", lambda: png(side, side, 16, 2, filtered=4, before=key)
    yield "png RGBA 16 Paeth", lambda: png(side, side, 16, 6, filtered=4)
    yield (
        "png RGBA 16 Paeth interlaced",
        lambda: png(side, side, 16, 6, filtered=4, interlaced=True),
    )
    yield "png RGBA interlaced", lambda: png(side, side, 8, 6, filtered=4, interlaced=True)
    yield "png of new tables", lambda: png_of_tables(min(side, 3200), min(side, 3200))

    def profile() -> bytes:
        """A gigabyte of zeros at the full size."""
        return chunk(b"iCCP", b"a\0\0" + deflated_zeros(min(2**30, 20 * pixels)))

    turned = chunk(b"eXIf", struct.pack("<4sIHHHIHHI", b"II*\0", 8, 1, 0x0112, 3, 1, 7, 0, 0))
    yield (
        "png turned and mirrored",
        lambda: png(side, side, 8, 2, filtered=4, before=turned),
    )
    yield "png RGBA turned and mirrored", lambda: png(side, side, 8, 6, before=turned)
    yield "png stored", lambda: png(min(side, 5000), min(side, 5000), 8, 0, level=0)
    yield (
        "png with a profile of a gigabyte",
        lambda: png(side, side, 8, 2, before=profile()),
    )
    yield (
        "png animated",
        lambda: png(
            side,
            side,
            8,
            6,
            before=chunk(b"acTL", struct.pack(">II", 10**6, 0))
            + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, side, side, 0, 0, 1, 1, 0, 0)),
        ),
    )
    yield (
        "png of empty chunks",
        lambda: png(side, side, 8, 6, before=chunk(b"IDAT", b"") * 9000),
    )
    yield "png in 9000 chunks", lambda: png(side, side, 8, 6, filtered=4, chunks=9000)
    yield "png of a million fractions", lambda: png(8, 8, 8, 2, before=exif_of_fractions(10**6))
    yield "png of many texts", lambda: png(side, side, 8, 6, before=texts)
    yield (
        "png grain",
        lambda: largest_that_fits(
            lambda s: encoded(noise(s, "RGBA"), "PNG", compress_level=1), side
        ),
    )
