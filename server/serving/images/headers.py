"""The facts that an image's first bytes state, read without a decoder and before any decoding.

In: the bytes of an encoded image and its format. Out: a `Header` with all that its price depends
on. Only a bounded number of fields is read, so that it takes microseconds whatever the file claims.
A header that cannot be read gives None: then the decoder, which reads the header, too, says what is
wrong. A JPEG has a module of its own, `jpeg_scans`.

Sources: PNG (W3C, third edition, 5.3 and 11.2.1); WebP (RFC 9649, 2.3 to 2.8); GIF89a, 18 to 20;
TIFF 6.0, sections 2, 8 and 15, and BigTIFF; BITMAPINFOHEADER; AVIF (ISO/IEC 23008-12, 6.5).
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.problems import UnreadableImage

PALETTE = 3  # PNG, table 11.1
# TIFF 6.0: the tags that are read, all of them numbers.
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIPS, ORIENTATION, SAMPLES, STRIP_SIZES = 273, 274, 277, 279
TILE_WIDTH, TILE_LENGTH, TILES, TILE_SIZES, EXTRA, OLD_JPEG = 322, 323, 324, 325, 338, 513
# The bytes of each of TIFF's types; those of a number as `struct` calls it.
TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
# The boxes that describe an image are searched in this many bytes: they lie before the pixels.
MAX_BOXES = 2**20
# Chunks of a PNG or blocks of a GIF before the pixels; a file with more is assumed to have
# everything.
MAX_PARTS = 1000


@dataclass(frozen=True)
class Header:
    """The size that will be decoded, and how its pixels are stored.

    `depth` is in bits for each channel, `pieces` are strips, tiles or items, `coding` is the
    number or name that the format gives to its compression, `photometric` TIFF's number for its
    colours. `decoded` is width × height unless tiles reach beyond the image. `turned` says that the
    image may have to be turned.
    """

    width: int
    height: int
    channels: int = 3
    depth: int = 8
    transparent: bool = False
    interlaced: bool = False
    coding: int | str = ""
    photometric: int = 0
    pieces: int = 1
    decoded: int = 0
    turned: bool = False

    @property
    def pixels(self) -> int:
        """How many pixels are decoded."""
        return max(self.width * self.height, self.decoded)


def read(kind: str, data: bytes) -> Header | None:
    """The header; `kind` is what `sniff` says. None for a JPEG and for what cannot be read."""
    reader = READERS.get(kind)
    if reader is None:
        return None
    try:
        return reader(data)
    except (struct.error, IndexError, KeyError):
        return None


def _png(data: bytes) -> Header:
    width, height, depth, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    transparent, at = colour >= 4, 33
    for number in range(MAX_PARTS + 1):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT" or number == MAX_PARTS:
            transparent |= kind != b"IDAT"
            break
        transparent |= kind == b"tRNS"
        at += 12 + length
    return Header(
        width,
        height,
        {0: 1, 2: 3, PALETTE: 1, 4: 2, 6: 4}[colour],
        depth,
        transparent=transparent,
        interlaced=bool(interlace),
        coding="palette" if colour == PALETTE else "",
        turned=b"eXIf" in data,
    )


def _webp(data: bytes) -> Header:
    kind = data[12:16]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        transparent, turned = (bool(data[20] & flag) for flag in (0x10, 0x08))
        return Header(width, height, 4, 8, transparent, coding="extended", turned=turned)
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        return Header(width, height, 4, 8, bool(bits >> 28 & 1), coding="lossless")
    width, height = struct.unpack_from("<HH", data, 26)
    return Header(width & 0x3FFF, height & 0x3FFF, coding="lossy")


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    transparent = False
    for _ in range(MAX_PARTS):
        if data[at] == ord(","):  # the first image, which may be larger than its screen
            x, y, across, down = struct.unpack_from("<HHHH", data, at + 1)
            # What no frame covers is transparent.
            transparent |= (x, y) != (0, 0) or across < width or down < height
            width, height = max(width, x + across), max(height, y + down)
            break
        transparent |= data[at : at + 2] == b"!\xf9" and bool(data[at + 3] & 1)
        at += 2 if data[at] == ord("!") else 1
        while data[at]:
            at += 1 + data[at]
        at += 1
    else:
        transparent = True
    return Header(width, height, 1, transparent=transparent)


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        coding = 0
    else:
        width, height, _, depth, coding = struct.unpack_from("<iiHHI", data, 18)
    return Header(abs(width), abs(height), max(1, depth // 8), min(8, depth), coding=coding)


def _tiff(data: bytes) -> Header:
    entries = {entry.tag: entry for entry in tiff_entries(data)}

    def number(tag: int, default: int) -> int:
        return entries[tag].first if tag in entries else default

    width, height = entries[WIDTH].first, entries[LENGTH].first
    across, down = number(TILE_WIDTH, 0), number(TILE_LENGTH, 0)
    decoded = 0
    if across > 0 and down > 0:
        decoded = -(-width // across) * -(-height // down) * across * down
    return Header(
        width,
        height,
        max(1, number(SAMPLES, 1)),
        number(BITS, 1),
        transparent=EXTRA in entries,
        coding=number(COMPRESSION, 1),
        photometric=number(PHOTOMETRIC, 0),
        pieces=max(entries[tag].count if tag in entries else 1 for tag in (STRIPS, TILES)),
        decoded=decoded,
        turned=number(ORIENTATION, 1) != 1,
    )


@dataclass(frozen=True)
class TiffEntry:
    """One tag of a TIFF: its first number (0 if it has none), and where all its numbers lie."""

    tag: int
    first: int
    count: int
    at: int
    code: str  # for `struct`, with the byte order


def tiff_entries(data: bytes) -> Iterator[TiffEntry]:
    """The tags of the first page. Raises struct.error where the directory is not there."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    pointer, many, room = ("Q", "Q", 8) if big else ("I", "H", 4)
    (at,) = struct.unpack_from(order + pointer, data, 8 if big else 4)
    (count_of_tags,) = struct.unpack_from(order + many, data, at)
    at += struct.calcsize(many)
    step = 4 + 2 * room
    for entry in range(at, at + min(count_of_tags, 4096) * step, step):
        tag, kind, count = struct.unpack_from(order + "HH" + pointer, data, entry)
        size = TIFF_SIZES.get(kind, 0) * count
        where = entry + 4 + room
        if size > room:
            (where,) = struct.unpack_from(order + pointer, data, where)
        code, first = TIFF_NUMBERS.get(kind, ""), 0
        if code and count and where + TIFF_SIZES[kind] <= len(data):
            (first,) = struct.unpack_from(order + code, data, where)
        yield TiffEntry(tag, first, count, where, order + code)


def tiff_pieces(data: bytes, most: int) -> list[tuple[int, int, int]]:
    """Each place where a strip or tile begins, its bytes, and how many begin there.

    Raises `UnreadableImage` if there are more than `most` places.
    """
    entries = {entry.tag: entry for entry in tiff_entries(data)}
    if OLD_JPEG in entries:
        at = entries[OLD_JPEG].first
        return [(at, max(0, len(data) - at), 1)]
    tags = (TILES, TILE_SIZES) if TILES in entries else (STRIPS, STRIP_SIZES)
    starts, sizes = (_numbers(data, entries.get(tag)) for tag in tags)
    count = min(len(starts), len(sizes))
    places, where, times = np.unique(starts[:count], return_inverse=True, return_counts=True)
    if len(places) > most:
        raise UnreadableImage(
            f"the TIFF has more than the {most} strips or tiles that are accepted; save it in "
            "larger ones, or uncompressed"
        )
    largest = np.zeros(len(places), np.uint64)
    np.maximum.at(largest, where, sizes[:count])
    return [(int(a), int(b), int(c)) for a, b, c in zip(places, largest, times, strict=True)]


def _numbers(data: bytes, entry: TiffEntry | None) -> npt.NDArray[np.uint64]:
    """All numbers of a tag that lie in the file."""
    if entry is None or len(entry.code) < 2:
        return np.empty(0, np.uint64)
    kind = np.dtype(entry.code[0] + f"u{struct.calcsize(entry.code)}")
    count = max(0, min(entry.count, (len(data) - entry.at) // kind.itemsize))
    return np.frombuffer(data, kind, count, entry.at if count else 0).astype(np.uint64)


def _boxes(data: bytes) -> Header:
    """The largest `ispe` of the file: of the image, of a tile of it, or of its transparency.

    `pieces` are its items, tiles of a grid among them.
    """
    front = data[:MAX_BOXES]
    width = height = 0
    at = front.find(b"ispe")
    while at != -1:
        across, down = struct.unpack_from(">II", front, at + 8)
        if across * down > width * height:
            width, height = across, down
        at = front.find(b"ispe", at + 4)
    at = front.find(b"pixi")
    depth = 8 if at == -1 else max(front[at + 9 : at + 9 + front[at + 8]], default=8)
    turned = b"irot" in front or b"imir" in front
    return Header(
        width,
        height,
        3,
        depth,
        transparent=b"auxC" in front,
        turned=turned,
        pieces=max(1, front.count(b"infe"), _derived(front)),
    )


def _derived(front: bytes) -> int:
    """How many images other images are made of, as a grid is of tiles; an image may count twice."""
    # ISO/IEC 14496-12, 8.11.12: the item's id, of 2 or 4 bytes by the version; then how many.
    references = front.find(b"iref")
    skip = 8 if references >= 0 and front[references + 4] else 6
    count, at = 0, front.find(b"dimg")
    while at != -1:
        count += struct.unpack_from(">H", front, at + skip)[0]
        at = front.find(b"dimg", at + 4)
    return count


READERS: dict[str, Callable[[bytes], Header]] = {
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
    "BMP": _bmp,
    "TIFF": _tiff,
    "AVIF": _boxes,
    "HEIF": _boxes,
}
