"""Expensive JPEGs (ITU-T T.81)."""

import struct
from collections.abc import Iterable, Iterator
from functools import partial

from tests.server.serving.images.bombs.parts import (
    Generator,
    encoded,
    largest_that_fits,
    noise,
    side_of,
)


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


def restarted_scans(scans: int, width: int, height: int) -> bytes:
    """Progressive, with a restart marker after each block of each scan: three bytes for one."""
    blocks = -(-width // 8) * -(-height // 8)
    tables = segment(0xC4, b"\0" + ONE_CODE + b"\0") + segment(0xC4, b"\x10" + ONE_CODE + b"\0")
    eight = b"".join(bytes((0x7F, 0xFF, 0xD0 + number)) for number in range(8))
    data = (eight * -(-blocks // 8))[: 3 * blocks - 2]
    first = scan([1], (0, 0), 0, data)
    bands = [(1 + number, 1 + number) for number in range(scans - 1)]
    rest = (scan([1], band, 0, data) for band in bands)
    return head(0xC2, width, height, [0x11], 1) + tables + first + b"".join(rest) + b"\xff\xd9"


def with_segments(data: bytes, count: int) -> bytes:
    """The JPEG with so many segments of the largest size, as profiles and thumbnails are."""
    return data[:2] + segment(0xE1, b"Exif\0\0" + bytes(65_000)) * count + data[2:]


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


def oriented(data: bytes) -> bytes:
    """The JPEG with an EXIF orientation that turns and mirrors it."""
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 7, 0, 0)
    return data[:2] + segment(0xE1, exif) + data[2:]


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
    yield (
        "jpeg progressive, restart after each block",
        lambda: restarted_scans(10, min(side, 8 * 1150), min(side, 8 * 1150)),
    )
    yield "jpeg luma four times as wide", lambda: flat_baseline(side, side, [0x41, 0x11, 0x11])
    yield "jpeg luma four times as tall", lambda: flat_baseline(side, side, [0x14, 0x11, 0x11])
    yield "jpeg luma of 4 by 2", lambda: flat_baseline(side, side, [0x42, 0x11, 0x11])
    yield "jpeg chroma four times as wide", lambda: flat_baseline(side, side, [0x11, 0x41, 0x14])
    yield (
        "jpeg with 400 thumbnails",
        lambda: with_segments(huffman_scans(10, 3, side, side), 400),
    )
    yield "jpeg lossless", lambda: head(0xC3, side, side, [0x11]) + scan([1], (1, 0), 0, b"\0") * 2
    yield "jpeg of two images", lambda: flat_baseline(side, side, [0x11] * 3) * 2
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
