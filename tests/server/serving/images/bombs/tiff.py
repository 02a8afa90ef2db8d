"""Expensive TIFFs (TIFF 6.0, and compressions that libtiff adds to it)."""

import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.server.serving.images.bombs.jpeg import arithmetic_scans, flat_baseline, huffman_scans
from tests.server.serving.images.bombs.parts import LARGEST, Generator, encoded, side_of

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


def tiffs(pixels: int) -> Iterator[tuple[str, Generator]]:  # noqa: PLR0915 - a list
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
    yield (
        "tiff tiles of 16 of JPEG",
        lambda: tiles(16, 1.0, flat_baseline(16, 16, [0x11]), 7, grey),
    )
    yield "tiff a pixel a strip", lambda: strips(1, 1, bytes(1), 1)
    yield "tiff a pixel a strip, deflate", lambda: strips(1, 1, deflated(bytes(1)), 8)
    yield "tiff of old JPEG", lambda: one_strip(flat_baseline(side, side, [0x11] * 3), 6, rgb, 6)
    yield "tiff of WebP", lambda: one_strip(
        encoded(Image.new("RGB", (side, side)), "WEBP", method=0), 50001, rgb, 2)  # fmt: skip
    yield "tiff turned and mirrored", lambda: one_strip(
        deflated(bytes(side * side * 3), 9), 8, rgb, 2, t274=7)  # fmt: skip
    yield "tiff of thousands of pages", lambda: pages(
        tiff(layout(side, side, rows=side, bits=grey, compression=8, photometric=1),
             [deflated(bytes(side * side), 9)], 1), 10**5)  # fmt: skip
    yield "tiff column, deflate", lambda: one_strip(
        deflated(bytes(pixels), 9), 8, grey, size=(1, pixels))  # fmt: skip
    yield "tiff column of RGB, deflate", lambda: one_strip(
        deflated(bytes(3 * pixels), 9), 8, rgb, 2, size=(1, pixels))  # fmt: skip
    yield "tiff deflate RGBA 16, predicted", lambda: one_strip(
        deflated(bytes(side * side * 8), 9), 8, [16] * 4, 2, t317=2, t338=2)  # fmt: skip
    yield "tiff deflate RGB 16", lambda: one_strip(
        deflated(bytes(side * side * 6), 9), 8, [16] * 3, 2)  # fmt: skip
    yield "tiff grey 16, predicted", lambda: one_strip(
        deflated(bytes(side * side * 2), 9), 8, [16], t317=2)  # fmt: skip
    yield "tiff grey and alpha", lambda: one_strip(
        deflated(bytes(side * side * 2), 9), 8, [8, 8], t338=2)  # fmt: skip
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
        lambda: of_one_strip({274: (LONG, [1] * 2_000_000)}).replace(
            struct.pack("<HHI", 274, LONG, 2_000_000), struct.pack("<HHI", 274, 5, 10**6)
        ),
    )
    yield (
        "tiff a private tag of millions of numbers",
        lambda: of_one_strip({33723: (LONG, [1] * 4_000_000)}),
    )
    yield "tiff LAB", lambda: one_strip(
        deflated(bytes(side * side * 3), 9), 8, rgb, 8)  # fmt: skip
    yield "tiff YCbCr", lambda: one_strip(
        deflated(bytes(side * side * 3), 9), 8, rgb, 6, t530=0x10001)  # fmt: skip


def of_one_strip(tags: dict[int, tuple[int, list[int]]]) -> bytes:
    """A grey image of 16 × 16 with more tags."""
    own = layout(16, 16, rows=16, bits=[8], compression=1, photometric=1)
    return tiff(own | tags, [bytes(256)], 1)


def pages(data: bytes, count: int) -> bytes:
    """The TIFF with so many empty pages more, one after the other."""
    (at,) = struct.unpack_from("<I", data, 4)
    (tags,) = struct.unpack_from("<H", data, at)
    end = at + 2 + 12 * tags
    data += b"\0" * (len(data) % 2)
    more = b"".join(
        struct.pack("<HHHIII", 1, 256, LONG, 1, 1, len(data) + 18 * (number + 1))
        for number in range(count - 1)
    )
    last = struct.pack("<HHHIII", 1, 256, LONG, 1, 1, 0)
    return data[:end] + struct.pack("<I", len(data)) + data[end + 4 :] + more + last


def lzw_of_zeros(count: int) -> bytes:
    """TIFF's LZW of a few zeros, without any string of more than one byte."""
    bits = "100000000" + "000000000" * count + "100000001"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
