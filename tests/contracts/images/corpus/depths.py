"""Bits per sample, ends of the scale, kinds of colour."""

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.contracts.images.corpus import Case, halves, same
from tests.contracts.images.corpus.writers import (
    SIZE,
    big_tiff,
    bmp,
    grey_tiff,
    png,
    rows,
    saved,
    tiff,
    two,
)

WHITE, BLACK, RED, GREEN, BLUE = same(255), same(0), (255, 0, 0), (0, 255, 0), (0, 0, 255)
BOTH_ORDERS = (("<", "II"), (">", "MM"))


def greys() -> Iterator[Case]:
    for bits in (1, 2, 4, 8, 16):
        most = 2**bits - 1
        middle = 1 if bits > 1 else 0
        shown = middle * 255 // most if bits <= 8 else middle >> 8
        for order, name in BOTH_ORDERS:
            for photometric, what in ((1, "black"), (0, "white")):
                data = grey_tiff(two((middle,), (most,)), bits, photometric, order)
                left, right = (shown, 255) if photometric else (255 - shown, 0)
                right_pixels = halves(same(left), same(right))
                yield Case(f"TIFF {name} grey {bits}, zero {what}", data, right_pixels)
    for photometric, what in ((1, "black"), (0, "white")):
        data = grey_tiff(two((0x800,), (0xFFF,)), 12, photometric)
        left, right = (0x80, 255) if photometric else (0x7F, 0)
        yield Case(f"TIFF II grey 12, zero {what}", data, halves(same(left), same(right)))
    for bits in (1, 2, 4, 8, 16):
        most = 2**bits - 1
        data = png(two((0,), (most,)), bits, 0)
        yield Case(f"PNG grey {bits}", data, halves(BLACK, WHITE))
    for photometric, what in ((1, "black"), (0, "white")):
        strip = b"".join(rows(two((0,), (0xFFFF,)), 16, order="<"))
        tags = {256: (4, SIZE), 257: (4, SIZE), 258: (3, 16), 262: (3, photometric)}
        left, right = (0, 255) if photometric else (255, 0)
        data = big_tiff(strip, tags)
        yield Case(f"BigTIFF grey 16, zero {what}", data, halves(same(left), same(right)))
        image = Image.fromarray(two((0,), (0xFFFF,))[..., 0].astype(np.uint16))
        data = saved(image, "TIFF", compression="tiff_lzw", tiffinfo={262: photometric})
        yield Case(f"TIFF LZW grey 16, zero {what}", data, halves(same(left), same(right)))
    steps = np.arange(SIZE * SIZE).reshape(SIZE, SIZE, 1) * 113
    upper = np.repeat((steps >> 8).astype(np.uint8), 3, axis=-1)
    yield Case("PNG grey 16 steps", png(steps, 16, 0), upper)
    yield Case("TIFF grey 16 steps", grey_tiff(steps, 16, 1), upper)
    yield Case("TIFF grey 16 steps, zero white", grey_tiff(steps, 16, 0), 255 - upper)


def colours() -> Iterator[Case]:
    deep = two((0xFFFF, 0, 0), (0, 0x1234, 0xFFFF))
    right = halves(RED, (0, 0x12, 255))
    yield Case("PNG RGB 16", png(deep, 16, 2), right)
    for order, name in BOTH_ORDERS:
        strip = [b"".join(rows(deep, 16, order=order))]
        tags = {258: (3, [16] * 3), 262: (3, [2]), 277: (3, [3])}
        yield Case(f"TIFF {name} RGB 16", tiff(strip, SIZE, SIZE, tags, order), right)
        ink = two((0, 0xFFFF, 0xFFFF, 0), (0xFFFF, 0xFFFF, 0, 0))
        strip = [b"".join(rows(ink, 16, order=order))]
        tags = {258: (3, [16] * 4), 262: (3, [5]), 277: (3, [4])}
        data = tiff(strip, SIZE, SIZE, tags, order)
        yield Case(f"TIFF {name} CMYK 16", data, halves(RED, BLUE))
    ink = two((0, 255, 255, 0), (255, 255, 0, 0))
    tags = {258: (3, [8] * 4), 262: (3, [5]), 277: (3, [4])}
    data = tiff([b"".join(rows(ink, 8))], SIZE, SIZE, tags)
    yield Case("TIFF CMYK 8", data, halves(RED, BLUE))
    planes = two((255, 0, 0), (0, 0, 255))
    strips = [b"".join(rows(planes[..., band : band + 1], 8)) for band in range(3)]
    tags = {258: (3, [8] * 3), 262: (3, [2]), 277: (3, [3]), 278: (4, [SIZE]), 284: (3, [2])}
    yield Case("TIFF RGB in planes", tiff(strips, SIZE, SIZE, tags), halves(RED, BLUE))


def palettes() -> Iterator[Case]:
    entries = np.zeros((3, 256), int)
    entries[:, 1], entries[:, 2] = (200, 100, 0), (0, 100, 200)
    right = halves((200, 100, 0), (0, 100, 200))
    strip = [b"".join(rows(two((1,), (2,)), 8))]
    for scale, name in ((257, "16"), (1, "8")):
        values = (entries * scale).ravel().tolist()
        tags = {258: (3, [8]), 262: (3, [3]), 320: (3, values)}
        data = tiff(strip, SIZE, SIZE, tags)
        yield Case(f"TIFF palette of {name} bits", data, right)
    colours_ = struct.pack("<3I", 0, 0xC86400, 0x0064C8)
    indices = two((1,), (2,)).astype(np.uint8).tobytes()
    yield Case("BMP palette", bmp(indices, 8, palette=colours_), right)


def bmps() -> Iterator[Case]:
    """16 bits per pixel: 5 each, or 6 of green (BITFIELDS)."""
    pixels = two((0x7C00,), (0x03E0,)).astype("<u2").tobytes()
    yield Case("BMP 5-5-5", bmp(pixels, 16), halves(RED, GREEN))
    pixels = two((0xF800,), (0x07E0,)).astype("<u2").tobytes()
    data = bmp(pixels, 16, 56, (0xF800, 0x7E0, 0x1F))
    yield Case("BMP 5-6-5", data, halves(RED, GREEN))
    pixels = two((0, 0, 255), (255, 0, 0)).astype(np.uint8).tobytes()
    yield Case("BMP 24", bmp(pixels, 24), halves(RED, BLUE))


def refused() -> Iterator[Case]:
    """What has no defined black and white, or would be a guess."""
    for kind, what in ((1, "unsigned"), (2, "signed"), (3, "floating-point")):
        strip = [bytes(4 * SIZE * SIZE)]
        tags = {258: (3, [32]), 262: (3, [1]), 339: (3, [kind])}
        says = "32 bits per sample" if kind == 1 else what
        yield Case(f"TIFF grey 32 {what}", tiff(strip, SIZE, SIZE, tags), says=says)
    tags = {258: (3, [8]), 262: (3, [1]), 339: (3, [2])}
    yield Case("TIFF signed bytes", tiff([bytes(SIZE**2)], SIZE, SIZE, tags), says="signed")
    tags = {258: (3, [16]), 262: (3, [1]), 339: (3, [2])}
    yield Case("TIFF signed 16", tiff([bytes(2 * SIZE**2)], SIZE, SIZE, tags), says="signed")
    tags = {258: (3, [8])}
    data = tiff([bytes(SIZE**2)], SIZE, SIZE, tags)
    yield Case("TIFF that names no colours", data, says="black or white")
    for bits in (14, 12):
        data = grey_tiff(two((1,), (2,)), bits, 1, ">")
        yield Case(f"TIFF MM grey {bits}", data, says=f"{bits} bits")
    tags = {258: (3, [16]), 262: (3, [1]), 339: (3, [3])}
    data = tiff([bytes(2 * SIZE**2)], SIZE, SIZE, tags)
    yield Case("TIFF half floats", data, says="floating-point")
    tags = {258: (3, [10]), 262: (3, [1])}
    data = tiff([bytes(2 * SIZE**2)], SIZE, SIZE, tags)
    yield Case("TIFF grey 10", data, says="10 bits")
    sensor = tiff([bytes(2 * SIZE**2)], SIZE, SIZE, {258: (3, [16]), 262: (3, [32803])})
    yield Case("TIFF of a sensor", sensor, says="raw file")
    preview = {258: (3, [8]), 262: (3, [1]), 254: (4, [1]), 330: (4, [8])}
    data = tiff([bytes(SIZE**2)], SIZE, SIZE, preview)
    yield Case("TIFF whose first page is a preview", data, says="raw file")


def cases() -> Iterator[Case]:
    """All of them."""
    yield from greys()
    yield from colours()
    yield from palettes()
    yield from bmps()
    yield from refused()
