"""Transparency, wherever a file keeps it: alpha, keys, palettes, frames that cover a part."""

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.contracts.images.corpus import Case, Pixels, halves, same
from tests.contracts.images.corpus.writers import (
    SIZE,
    bmp,
    chunk,
    gif,
    grey_tiff,
    png,
    riff,
    riff_chunk,
    rows,
    saved,
    scene,
    tiff,
    two,
    with_chunks,
)

WHITE, BLACK, RED, BLUE = same(255), same(0), (255, 0, 0), (0, 0, 255)
GREY, COLOUR, INDEXED, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6  # PNG, 11.2.1


def key(*samples: int, right: bool = True) -> bytes:
    """tRNS: always two bytes for each sample (PNG, 11.3.1.1)."""
    return chunk(b"tRNS", struct.pack(f">{len(samples)}H", *samples), right=right)


def grey_keys() -> Iterator[Case]:
    for bits in (1, 2, 4, 8, 16):
        most = 2**bits - 1
        for transparent, other in ((0, most), (most, 0)) if bits > 1 else ((0, 1), (1, 0)):
            shown = same(255 if other else 0)
            samples = two((transparent,), (other,))
            for interlaced in (False, True):
                data = png(samples, bits, GREY, key(transparent), interlaced=interlaced)
                how = " interlaced" * interlaced
                yield Case(f"PNG grey {bits}{how}, {transparent} clear", data, halves(WHITE, shown))
    samples = two((1,), (2,))
    yield Case("PNG grey 2, 1 clear", png(samples, 2, GREY, key(1)), halves(WHITE, same(170)))
    yield Case("PNG grey 4, 2 clear", png(samples, 4, GREY, key(2)), halves(same(17), WHITE))
    far = png(two((0x7B,), (0x10,)), 8, GREY, key(0xFF7B))
    yield Case("PNG grey 8, a key with more bits", far, halves(WHITE, same(16)))
    near = png(two((0x1234,), (0x1235,)), 16, GREY, key(0x1234))
    yield Case("PNG grey 16, keys apart by the last bit", near, halves(WHITE, same(0x12)))


def colour_keys() -> Iterator[Case]:
    eight = two((10, 20, 30), (10, 20, 31))
    yield Case("PNG RGB 8 key", png(eight, 8, COLOUR, key(10, 20, 30)), halves(WHITE, (10, 20, 31)))
    deep = two((0x0A01, 0x1402, 0x1E03), (0x0A01, 0x1402, 0x1E04))
    for interlaced in (False, True):
        data = png(deep, 16, COLOUR, key(0x0A01, 0x1402, 0x1E03), interlaced=interlaced)
        name = f"PNG RGB 16 key{' interlaced' * interlaced}"
        yield Case(name, data, halves(WHITE, (10, 20, 30)))
    unused = png(deep, 16, COLOUR, key(0x0A01, 0x1402, 0x1E05))
    yield Case("PNG RGB 16, a key that no pixel has", unused, halves((10, 20, 30), (10, 20, 30)))


def ignored_keys() -> Iterator[Case]:
    """tRNS that a decoder must not follow (PNG, 5.6, 11.3.1.1, 13.1)."""
    samples, right = two((7,), (9,)), halves(same(7), same(9))
    yield Case("PNG key with a wrong checksum", png(samples, 8, GREY, key(7, right=False)), right)
    yield Case("PNG key after the pixels", png(samples, 8, GREY, after=key(7)), right)
    yield Case("PNG key of 1 byte", png(samples, 8, GREY, chunk(b"tRNS", b"\7")), right)
    yield Case("PNG key of no byte", png(samples, 8, GREY, chunk(b"tRNS", b"")), right)
    alpha = two((7, 255), (9, 255))
    yield Case("PNG key beside alpha", png(alpha, 8, GREY_ALPHA, key(7)), right)
    entries = chunk(b"PLTE", bytes((*RED, *BLUE))) + chunk(b"tRNS", bytes(3))
    data = png(two((0,), (1,)), 8, INDEXED, entries)
    yield Case("PNG with more alphas than colours", data, halves(RED, BLUE))
    early = chunk(b"tRNS", bytes(2)) + chunk(b"PLTE", bytes((*RED, *BLUE)))
    data = png(two((0,), (1,)), 8, INDEXED, early)
    yield Case("PNG alphas before the palette", data, halves(RED, BLUE))


def palettes() -> Iterator[Case]:
    for bits in (1, 2, 4, 8):
        chunks = chunk(b"PLTE", bytes((*BLACK, *RED))) + chunk(b"tRNS", b"\x80")
        data = png(two((0,), (1,)), bits, INDEXED, chunks)
        yield Case(f"PNG palette {bits}, half clear", data, halves(same(127), RED), 1)
    chunks = chunk(b"PLTE", bytes((*BLACK, *RED))) + chunk(b"tRNS", b"\xff\0")
    data = png(two((0,), (1,)), 8, INDEXED, chunks)
    yield Case("PNG palette, one colour clear", data, halves(BLACK, WHITE))
    data = png(two((0,), (5,)), 8, INDEXED, chunk(b"PLTE", bytes((*BLUE, *RED))))
    yield Case("PNG index beyond the palette", data, halves(BLUE, BLACK))
    yield Case("GIF colour clear", gif_halves(0), halves(WHITE, BLUE))
    yield Case("GIF without a clear colour", gif(two((0,), (1,))[..., 0]), halves(RED, BLUE))
    beyond = gif(two((0,), (6,))[..., 0])
    yield Case("GIF index beyond the palette", beyond, halves(RED, WHITE))


def gif_halves(transparent: int) -> bytes:
    control = b"!\xf9\4\1\0\0" + bytes((transparent,)) + b"\0"
    return gif(two((0,), (1,))[..., 0], before=control)


def alphas() -> Iterator[Case]:
    alpha = np.broadcast_to(np.linspace(0, 255, 56).round().astype(np.uint8), (40, 56))[..., None]
    over = (scene() * (alpha / 255) + (255 - alpha)).round().astype(np.uint8)
    ramp = Image.fromarray(np.concatenate([scene(), alpha], axis=-1))
    yield Case("PNG alpha ramp", saved(ramp, "PNG"), over, 1)
    yield Case("TIFF alpha ramp", saved(ramp, "TIFF"), over, 1)
    yield Case("WebP alpha ramp", saved(ramp, "WEBP", lossless=True, exact=True), over, 1)
    avif = saved(ramp, "AVIF", quality=100, subsampling="4:4:4", alpha_premultiplied=False)
    yield Case("AVIF alpha ramp", avif, over, 4)
    deep = two((0x0A01, 0x1402, 0x1E03, 0), (0x0A01, 0x1402, 0x1E03, 0xFFFF))
    yield Case("PNG RGBA 16", png(deep, 16, COLOUR_ALPHA), halves(WHITE, (10, 20, 30)))
    deep = two((0x4000, 0), (0x4000, 0xFFFF))
    yield Case("PNG grey and alpha 16", png(deep, 16, GREY_ALPHA), halves(WHITE, same(64)))
    clear = saved(Image.new("RGBA", (9, 9)), "PNG")
    yield Case("PNG clear all over", clear, plain(9, WHITE))


def tiffs() -> Iterator[Case]:
    """ExtraSamples (338): 0 says nothing, 1 is alpha that was multiplied in, 2 is alpha."""
    colours = two((200, 100, 0, 0), (200, 100, 0, 255))
    strip = [b"".join(rows(colours, 8))]
    base = {258: (3, [8] * 4), 262: (3, [2]), 277: (3, [4])}
    opaque = halves((200, 100, 0), (200, 100, 0))
    clear = halves(WHITE, (200, 100, 0))
    yield Case("TIFF alpha", tiff(strip, SIZE, SIZE, {**base, 338: (3, [2])}), clear)
    data = tiff(strip, SIZE, SIZE, {**base, 338: (3, [0])})
    yield Case("TIFF sample of no meaning", data, opaque)
    multiplied = two((0, 0, 0, 0), (200, 100, 0, 255))
    data = tiff([b"".join(rows(multiplied, 8))], SIZE, SIZE, {**base, 338: (3, [1])})
    yield Case("TIFF multiplied alpha", data, clear)
    empty = [b"".join(rows(two((200, 100, 0, 0), (0, 100, 200, 0)), 8))]
    right = halves((200, 100, 0), (0, 100, 200))
    yield Case("TIFF alpha undeclared and empty", tiff(empty, SIZE, SIZE, base), right)
    grey = [b"".join(rows(two((90, 0), (90, 255)), 8))]
    tags = {258: (3, [8, 8]), 262: (3, [1]), 277: (3, [2]), 338: (3, [2])}
    yield Case("TIFF grey and alpha", tiff(grey, SIZE, SIZE, tags), halves(WHITE, same(90)))
    grey = [b"".join(rows(two((0, 0), (90, 255)), 8))]
    data = tiff(grey, SIZE, SIZE, {**tags, 338: (3, [1])})
    yield Case("TIFF grey and multiplied alpha", data, halves(WHITE, same(90)))
    yield Case("TIFF grey", grey_tiff(two((7,), (9,)), 8, 1), halves(same(7), same(9)))


def bmps() -> Iterator[Case]:
    colours = {"V3": 56, "V4": 108, "V5": 124}
    blue_green_red = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    pixels = two((0, 0, 255, 0), (255, 0, 0, 0)).astype(np.uint8).tobytes()
    for name, header in colours.items():
        data = bmp(pixels, 32, header, blue_green_red)
        yield Case(f"BMP {name}, alpha declared and empty", data, halves(RED, BLUE))
    real = two((0, 0, 255, 0), (255, 0, 0, 255)).astype(np.uint8).tobytes()
    data = bmp(real, 32, 124, blue_green_red)
    yield Case("BMP V5 with alpha", data, halves(WHITE, BLUE))
    yield Case("BMP of 32 bits", bmp(pixels, 32), halves(RED, BLUE))
    yield Case("BMP of 32 bits, fourth byte used", bmp(real, 32), halves(RED, BLUE))


def frames() -> Iterator[Case]:
    right = np.full((SIZE, SIZE, 3), 255, np.uint8)
    right[4:14, 6:18] = BLUE
    part = np.ones((10, 12), np.int64)
    for background in (0, 1):
        data = gif(part, (6, 4), background=background)
        yield Case(f"GIF of a part, background {background}", data, right)
    data = gif(np.ones((9, 9), np.int64), screen=(3, 3))
    yield Case("GIF larger than its screen", data, plain(9, BLUE))
    frame = saved(Image.new("RGB", (12, 10), BLUE), "WEBP", lossless=True)[12:]
    place = b"".join(number.to_bytes(3, "little") for number in (3, 2, 11, 9, 100)) + b"\0"
    canvas = bytes((2, 0, 0, 0)) + (SIZE - 1).to_bytes(3, "little") * 2
    data = riff(
        riff_chunk(b"VP8X", canvas),
        riff_chunk(b"ANIM", bytes(6)),
        riff_chunk(b"ANMF", place + frame),
    )
    yield Case("WebP frame of a part", data, right)
    half = with_chunks(saved(np.full((4, 4, 3), 9, np.uint8), "PNG"), key(9, 9, 9))
    yield Case("PNG all of the key colour", half, plain(4, WHITE))


def plain(size: int, colour: tuple[int, int, int]) -> Pixels:
    return np.full((size, size, 3), colour, np.uint8)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from grey_keys()
    yield from colour_keys()
    yield from ignored_keys()
    yield from palettes()
    yield from alphas()
    yield from tiffs()
    yield from bmps()
    yield from frames()
