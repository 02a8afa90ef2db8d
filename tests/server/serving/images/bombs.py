"""Small files that are expensive to decode, all at a given limit of pixels and within 32 MiB.

In: the limit. Out: for each name the bytes of a file. Nothing here is downloaded or copied: the
writers follow the specifications, or ask Pillow's encoders for what nobody would ask them for.

    python -m tests.server.serving.images.bombs OUT --pixels 50000000
"""

import argparse
import functools
import io
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin

LARGEST = 32 * 2**20  # bytes of a file: --max-body-bytes
Generator = Callable[[], bytes]


def side_of(pixels: int, multiple: int = 8) -> int:
    """The side of the largest square within so many pixels whose side is such a multiple."""
    return max(multiple, math.isqrt(pixels) // multiple * multiple)


def bombs(pixels: int) -> dict[str, Generator]:
    """A generator for each name; names begin with the format."""
    makers = (jpegs, pngs, webps, gifs, bmps, tiffs, avifs)
    return {name: make for maker in makers for name, make in maker(pixels)}


# --- JPEG: ITU-T T.81


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", 2 + len(data)) + data


def head(frame: int, width: int, height: int, factors: Iterable[int], restart: int = 0) -> bytes:
    """Start, a quantisation table of ones and a frame header; `factors` are H << 4 | V."""
    parts = [bytes((number, factor, 0)) for number, factor in enumerate(factors, 1)]
    sizes = struct.pack(">BHHB", 8, height, width, len(parts))
    every = segment(0xDD, struct.pack(">H", restart)) if restart else b""
    table = segment(0xDB, b"\0" + b"\1" * 64)
    return b"\xff\xd8" + table + every + segment(frame, sizes + b"".join(parts))


def scan(parts: Iterable[int], band: tuple[int, int], approximation: int, data: bytes) -> bytes:
    """One scan of the components `parts`; in `data` FF is escaped already."""
    chosen = bytes(byte for part in parts for byte in (part, 0))
    count = len(chosen) // 2
    return segment(0xDA, bytes((count,)) + chosen + bytes((*band, approximation))) + data


def stuffed(bits: str) -> bytes:
    """The bits, filled up with ones to whole bytes, each FF escaped."""
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


ONE_CODE = b"\1" + bytes(15)  # a Huffman table of one code, which is a single 0


def no_coefficients(blocks: int) -> bytes:
    """A scan without any coefficient: EOB14 and 14 more bits end 32,767 blocks (T.81, G.1.2.2)."""
    return stuffed("011111111111111" * -(-blocks // 32767))


def huffman_scans(scans: int, components: int, width: int, height: int) -> bytes:
    """Progressive, with empty scans that each go over all the coefficients of a component."""
    blocks = -(-width // 8) * -(-height // 8)
    tables = segment(0xC4, b"\0" + ONE_CODE + b"\0") + segment(0xC4, b"\x10" + ONE_CODE + b"\xe0")
    parts = [tables]
    for number in range(components):
        parts.append(scan([number + 1], (0, 0), 0, bytes(-(-blocks // 8))))
    empty = no_coefficients(blocks)
    for number in range(scans - components):
        again = number >= components
        parts.append(scan([number % components + 1], (1, 63), 0x10 if again else 0x01, empty))
    return head(0xC2, width, height, [0x11] * components) + b"".join(parts) + b"\xff\xd9"


def arithmetic_scans(scans: int, width: int, height: int) -> bytes:
    """Progressive with arithmetic coding (T.81, annex D): two bytes are a flat image's scan."""
    conditioning = segment(0xCC, b"\0\x10") + scan([1], (0, 0), 0, b"\x4b\xc6")
    first = segment(0xCC, b"\x10\x05") + scan([1], (1, 63), 0x01, b"\xa5\xe3")
    more = segment(0xCC, b"\x10\x05") + scan([1], (1, 63), 0x10, b"\xa5\xe3")
    return (
        head(0xCA, width, height, [0x11]) + conditioning + first + more * (scans - 2) + b"\xff\xd9"
    )


def flat_baseline(width: int, height: int, factors: list[int], *, restart: int = 0) -> bytes:
    """Baseline without any coefficient: two bits a block, or a restart marker after each MCU."""
    tables = segment(0xC4, b"\0" + ONE_CODE + b"\0") + segment(0xC4, b"\x10" + ONE_CODE + b"\0")
    across = max(factor >> 4 for factor in factors)
    down = max(factor & 15 for factor in factors)
    units = -(-width // (8 * across)) * -(-height // (8 * down))
    if len(factors) == 1:
        units = -(-width // 8) * -(-height // 8)
        blocks = 1
    else:
        blocks = sum((factor >> 4) * (factor & 15) for factor in factors)
    if restart:
        one = stuffed("00" * blocks * restart)
        data = b"".join(one + bytes((0xFF, 0xD0 + number % 8)) for number in range(8))
        data = data * (-(-units // restart) // 8 + 1)
    else:
        data = bytes(-(-units * blocks * 2 // 8))
    body = scan(range(1, len(factors) + 1), (0, 63), 0, data)
    return head(0xC0, width, height, factors, restart) + tables + body + b"\xff\xd9"


def separate_scans(width: int, height: int, components: int) -> bytes:
    """Baseline, a scan for each component: the decoder has to keep all coefficients."""
    tables = segment(0xC4, b"\0" + ONE_CODE + b"\0") + segment(0xC4, b"\x10" + ONE_CODE + b"\0")
    blocks = -(-width // 8) * -(-height // 8)
    scans = (scan([n + 1], (0, 63), 0, bytes(-(-blocks // 4))) for n in range(components))
    return head(0xC0, width, height, [0x11] * components) + tables + b"".join(scans) + b"\xff\xd9"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@functools.lru_cache(maxsize=2)
def noise(side: int, mode: str = "RGB") -> Image.Image:
    """Grain that no encoder can predict."""
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    tile = np.random.default_rng(5).integers(0, 256, (256, 256, channels), np.uint8)
    many = -(-side // 256)
    pixels = np.tile(tile, (many, many, 1))[:side, :side]
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)


def oriented(data: bytes) -> bytes:
    """The JPEG with an EXIF orientation that turns and mirrors it."""
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 7, 0, 0)
    return data[:2] + segment(0xE1, exif) + data[2:]


def largest_that_fits(make: Callable[[int], bytes], side: int) -> bytes:
    """The file of the largest side, of a few, that is not larger than a body may be."""
    for factor in (1.0, 0.8, 0.65, 0.5, 0.35, 0.25):
        data = make(int(side * factor) // 8 * 8)
        if len(data) <= LARGEST:
            return data
    raise AssertionError("nothing fits")


def jpegs(pixels: int) -> Iterator[tuple[str, Generator]]:
    side = side_of(pixels)
    long = 65_496  # libjpeg's limit is 65,500
    short = max(8, pixels // long // 8 * 8)

    def saved(side: int, quality: int, mode: str = "RGB", **options: object) -> bytes:
        return encoded(noise(side, mode), "JPEG", quality=quality, **options)

    for scans in (11, 30, 100):
        yield f"jpeg arithmetic {scans} scans", partial(arithmetic_scans, scans, side, side)
        yield f"jpeg Huffman {scans} scans", partial(huffman_scans, scans, 1, side, side)
    yield "jpeg Huffman colour 30 scans", lambda: huffman_scans(30, 3, side, side)
    yield "jpeg Huffman colour 99 scans", lambda: huffman_scans(99, 3, side, side)
    yield "jpeg Huffman 4 channels 40 scans", lambda: huffman_scans(40, 4, side, side)
    yield "jpeg DC alone, colour", lambda: huffman_scans(3, 3, side, side)
    yield "jpeg DC alone, 4 channels", lambda: huffman_scans(4, 4, side, side)
    yield "jpeg baseline in scans of its own, colour", lambda: separate_scans(side, side, 3)
    yield "jpeg baseline in scans of its own, 4 channels", lambda: separate_scans(side, side, 4)
    yield "jpeg without its end", lambda: huffman_scans(18, 1, side, side)[:-2]
    yield "jpeg flat without its end", lambda: flat_baseline(side, side, [0x11] * 3)[:-2]
    yield "jpeg flat 4:4:4", lambda: flat_baseline(side, side, [0x11] * 3)
    yield "jpeg flat 4 channels", lambda: flat_baseline(side, side, [0x11] * 4)
    yield "jpeg chroma larger than luma", lambda: flat_baseline(side, side, [0x11, 0x22, 0x22])
    yield "jpeg luma of a third", lambda: flat_baseline(side, side, [0x31, 0x11, 0x21])
    yield "jpeg restart after each block", lambda: flat_baseline(side, side, [0x11], restart=1)
    yield "jpeg wide", lambda: flat_baseline(long, short, [0x11] * 3)
    yield "jpeg tall", lambda: flat_baseline(short, long, [0x11] * 3)
    yield "jpeg tall, progressive", lambda: huffman_scans(10, 3, short, long)
    yield "jpeg turned and mirrored", lambda: oriented(flat_baseline(side, side, [0x11] * 3))
    yield "jpeg grain", lambda: largest_that_fits(lambda s: saved(s, 40), side)
    yield (
        "jpeg grain, progressive",
        lambda: largest_that_fits(lambda s: saved(s, 40, progressive=True), side),
    )
    yield (
        "jpeg grain, progressive 4:4:4",
        lambda: largest_that_fits(
            lambda s: saved(s, 60, progressive=True, subsampling="4:4:4"), side
        ),
    )
    yield (
        "jpeg grain, progressive CMYK",
        lambda: largest_that_fits(lambda s: saved(s, 60, "CMYK", progressive=True), side),
    )


# --- PNG: W3C PNG, third edition


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
    yield "png in 9000 chunks", lambda: png(side, side, 8, 6, filtered=4, chunks=9000)
    yield "png of a million fractions", lambda: png(8, 8, 8, 2, before=exif_of_fractions(10**6))
    yield "png of many texts", lambda: png(side, side, 8, 6, before=texts)
    yield (
        "png grain",
        lambda: largest_that_fits(
            lambda s: encoded(noise(s, "RGBA"), "PNG", compress_level=1), side
        ),
    )


# --- WebP: RFC 9649


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


# --- GIF: GIF89a


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


# --- BMP


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
    yield "bmp runs", lambda: bmp(2048, 2032, 8, 1, b"\0\1")


# --- TIFF 6.0, and compressions that libtiff adds to it

SHORT, LONG = 3, 4


def tiff(
    tags: dict[int, tuple[int, list[int]]], pieces: list[bytes], count: int, *, tiled: bool = False
) -> bytes:
    """A TIFF whose `count` strips or tiles are the given pieces again and again."""
    body = b"".join(piece + b"\0" * (len(piece) % 2) for piece in pieces)
    places, at = [], 8
    for piece in pieces:
        places.append(at)
        at += len(piece) + len(piece) % 2
    offsets = [places[number % len(pieces)] for number in range(count)]
    sizes = [len(pieces[number % len(pieces)]) for number in range(count)]
    every = dict(tags)
    every[324 if tiled else 273] = (LONG, offsets)
    every[325 if tiled else 279] = (LONG, sizes)
    entries, after = b"", b""
    start = 8 + len(body)
    beyond = start + 2 + 12 * len(every) + 4
    for tag, (kind, values) in sorted(every.items()):
        packed = struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        if len(packed) <= 4:
            value = packed.ljust(4, b"\0")
        else:
            value = struct.pack("<I", beyond + len(after))
            after += packed + b"\0" * (len(packed) % 2)
        entries += struct.pack("<HHI", tag, kind, len(values)) + value
    directory = struct.pack("<H", len(every)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", start) + body + directory + after


def layout(
    width: int,
    height: int,
    *,
    rows: int,
    bits: list[int],
    compression: int,
    photometric: int,
    **more: int,
) -> dict[int, tuple[int, list[int]]]:
    """The tags of an image in strips of so many rows; `more` are tags by `tNUMBER`."""
    tags = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, bits),
        259: (SHORT, [compression]),
        262: (SHORT, [photometric]),
        277: (SHORT, [len(bits)]),
        278: (LONG, [rows]),
    }
    for name, value in more.items():
        tags[int(name[1:])] = (LONG if value > 65_535 else SHORT, [value])
    return tags


def tiff_of_one(image: Image.Image, compression: str, **options: object) -> bytes:
    return encoded(image, "TIFF", compression=compression, **options)


def tiffs(pixels: int) -> Iterator[tuple[str, Generator]]:
    side = side_of(pixels, 16)
    grey, rgb = [8], [8, 8, 8]
    deflated = zlib.compress

    def strips(width: int, rows: int, piece: bytes, compression: int, **more: int) -> bytes:
        """As many strips as the body has room for, all the same."""
        count = min(pixels // (width * rows), (LARGEST - 10_000 - len(piece)) // 8)
        tags = layout(width, rows * count, rows=rows, bits=grey, compression=compression,
                      photometric=1, **more)  # fmt: skip
        return tiff(tags, [piece], count)

    def tiles(tile: int, slack: float, piece: bytes, compression: int, bits: list[int]) -> bytes:
        across = max(1, math.isqrt(int(pixels * slack)) // tile)
        across = min(across, math.isqrt((LARGEST - 10_000 - len(piece)) // 8))
        width = across * tile if slack <= 1 else (across - 1) * tile + 1
        tags = layout(width, width, rows=tile, bits=bits, compression=compression,
                      photometric=1 if len(bits) == 1 else 2, t322=tile, t323=tile)  # fmt: skip
        return tiff(tags, [piece], across * across, tiled=True)

    def one_strip(
        piece: bytes,
        compression: int,
        bits: list[int],
        photometric: int = 1,
        size: tuple[int, int] = (side, side),
        **more: int,
    ) -> bytes:
        width, height = size
        tags = layout(
            width,
            height,
            rows=height,
            bits=bits,
            compression=compression,
            photometric=photometric,
            **more,
        )
        return tiff(tags, [piece], 1)

    yield (
        "tiff strip of arithmetic JPEG",
        lambda: one_strip(arithmetic_scans(100, side, side), 7, grey),
    )
    yield (
        "tiff strip of Huffman scans",
        lambda: one_strip(huffman_scans(100, 1, side, side), 7, grey),
    )
    yield "tiff strip of DC alone", lambda: one_strip(huffman_scans(3, 3, side, side), 7, rgb, 2)
    yield "tiff a row a strip, deflate", lambda: strips(50, 1, deflated(bytes(50)), 8)
    yield "tiff a row a strip, raw", lambda: strips(12, 1, bytes(12), 1)
    yield "tiff a row a strip, packbits", lambda: strips(50, 1, b"\xcf\0", 32773)
    yield "tiff a row a strip, LZW", lambda: strips(50, 1, lzw_of_zeros(50), 5)
    yield (
        "tiff strips of JPEG",
        lambda: strips(48, 8, flat_baseline(48, 8, [0x11]), 7),
    )
    yield (
        "tiff tiles of 16, deflate",
        lambda: tiles(16, 1.0, deflated(bytes(256)), 8, grey),
    )
    yield "tiff tiles of 16, RGB", lambda: tiles(16, 1.0, deflated(bytes(768)), 8, rgb)
    yield (
        "tiff tiles twice the image",
        lambda: tiles(side // 32 * 16, 1.9, deflated(bytes((side // 32 * 16) ** 2 * 3), 9), 8, rgb),
    )
    yield "tiff column, deflate", lambda: one_strip(
        deflated(bytes(pixels), 9), 8, grey, size=(1, pixels))  # fmt: skip
    yield "tiff column of RGB, deflate", lambda: one_strip(
        deflated(bytes(3 * pixels), 9), 8, rgb, 2, size=(1, pixels))  # fmt: skip
    yield "tiff deflate RGBA 16, predicted", lambda: one_strip(
        deflated(bytes(side * side * 8), 9), 8, [16] * 4, 2, t317=2, t338=2)  # fmt: skip
    yield "tiff deflate RGB 16", lambda: one_strip(
        deflated(bytes(side * side * 6), 9), 8, [16] * 3, 2)  # fmt: skip
    yield "tiff grey 32 float", lambda: one_strip(
        deflated(bytes(side * side * 4), 9), 8, [32], 1, t339=3, t317=3)  # fmt: skip
    yield "tiff CMYK deflate", lambda: one_strip(
        deflated(bytes(side * side * 4), 9), 8, [8] * 4, 5)  # fmt: skip
    yield "tiff planes deflate", lambda: tiff(
        layout(side, side, rows=side, bits=rgb, compression=8, photometric=2, t284=2),
        [deflated(bytes(side * side), 9)], 3)  # fmt: skip
    yield "tiff group 4", lambda: tiff_of_one(Image.new("1", (side, side)), "group4")
    yield "tiff group 3", lambda: tiff_of_one(Image.new("1", (side, side)), "group3")
    rows = np.array([[0], [1]], bool)
    yield (
        "tiff group 4, a row black and a row white",
        lambda: tiff_of_one(Image.fromarray(np.tile(rows, (side // 2, side))), "group4"),
    )
    yield "tiff LZW", lambda: tiff_of_one(Image.new("RGB", (side, side)), "tiff_lzw")
    yield "tiff packbits", lambda: tiff_of_one(Image.new("L", (side, side)), "packbits")
    yield "tiff zstd", lambda: tiff_of_one(Image.new("RGBA", (side, side)), "zstd")
    yield "tiff lzma", lambda: tiff_of_one(Image.new("RGBA", (side, side)), "lzma")
    yield (
        "tiff orientation of a million fractions",
        lambda: tiff(
            layout(16, 16, rows=16, bits=grey, compression=1, photometric=1)
            | {274: (LONG, [1] * 2_000_000)},
            [bytes(256)],
            1,
        ).replace(struct.pack("<HHI", 274, LONG, 2_000_000), struct.pack("<HHI", 274, 5, 10**6)),
    )
    yield (
        "tiff a private tag of millions of numbers",
        lambda: tiff(
            layout(16, 16, rows=16, bits=grey, compression=1, photometric=1)
            | {33723: (LONG, [1] * 4_000_000)},
            [bytes(256)],
            1,
        ),
    )
    yield "tiff LAB", lambda: one_strip(
        deflated(bytes(side * side * 3), 9), 8, rgb, 8)  # fmt: skip
    yield "tiff YCbCr", lambda: one_strip(
        deflated(bytes(side * side * 3), 9), 8, rgb, 6, t530=0x10001)  # fmt: skip


def lzw_of_zeros(count: int) -> bytes:
    """TIFF's LZW of a few zeros, without any string of more than one byte."""
    bits = "100000000" + "000000000" * count + "100000001"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


# --- AVIF: AV1 Image File Format


def avifs(pixels: int) -> Iterator[tuple[str, Generator]]:
    side = side_of(pixels)

    def flat(mode: str, **options: object) -> bytes:
        colour = (1, 2, 3, 77)[: len(mode)]
        return encoded(Image.new(mode, (side, side), colour), "AVIF", speed=10, **options)

    yield "avif flat 4:2:0", lambda: flat("RGB", quality=50)
    yield "avif flat 4:4:4", lambda: flat("RGB", quality=50, subsampling="4:4:4")
    yield "avif flat with alpha", lambda: flat("RGBA", quality=50)
    yield "avif lossless", lambda: flat("RGB", quality=100, subsampling="4:4:4")
    yield (
        "avif grain",
        lambda: largest_that_fits(
            lambda s: encoded(noise(s), "AVIF", speed=10, quality=20, max_threads=2), side
        ),
    )


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


def main() -> None:
    """Write every file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pixels", type=int, default=50_000_000)
    options = parser.parse_args()
    TiffImagePlugin.WRITE_LIBTIFF = True
    Image.MAX_IMAGE_PIXELS = None
    options.out.mkdir(parents=True, exist_ok=True)
    for prefix, all_of_them in (("", bombs(options.pixels)), ("honest ", honest(options.pixels))):
        for name, make in all_of_them.items():
            data = make()
            assert len(data) <= LARGEST, (name, len(data))
            path = options.out / f"{prefix}{name}".replace(" ", "-").replace(":", "")
            path.write_bytes(data)
            print(f"{len(data):>10} {prefix}{name}", flush=True)


if __name__ == "__main__":
    main()
