"""PNG (W3C, third edition): the parts that determine the pixels, without the metadata.

In: the bytes of a file. Out: a `Layout`: a PNG of the same pixels without text, profiles and other
ancillary chunks, its transparent key colour, and the orientation that EXIF states. Only the pixels
are ever inflated.
"""

import zlib
from typing import NamedTuple

from contracts.images import exif
from contracts.images.errors import UnreadableImageError
from contracts.images.limits import check_chunks

HEADER, PALETTE, PIXELS, END = b"IHDR", b"PLTE", b"IDAT", b"IEND"
TRANSPARENCY, EXIF = b"tRNS", b"eXIf"
END_CHUNK = b"\0\0\0\0IEND\xaeB`\x82"
GREY, COLOUR, INDEXED = 0, 2, 3  # colour types, 11.2.1


class Layout(NamedTuple):
    """What is known of a PNG before it is decoded."""

    data: bytes  # without metadata
    orientation: int
    bits: int  # per sample
    colour: int  # colour type
    interlaced: bool
    palette: int  # colours in it
    # Samples of the colour that is transparent, at the image's own depth (11.3.1.1). An indexed
    # image keeps its chunk instead.
    key: tuple[int, ...] | None


def read_layout(data: bytes) -> Layout:
    """The layout of a PNG. Raises `UnreadableImageError` where it is none, or costs too much."""
    if data[8:16] != b"\0\0\0\r" + HEADER or len(data) < 33:
        if data[12:16] == b"CgBI":
            raise UnreadableImageError(
                "the file is a PNG in Apple's own form (CgBI), which is not read; take the one "
                "from before it was built into an app"
            )
        raise UnreadableImageError("the PNG header cannot be read: it has no IHDR chunk")
    bits, colour, interlaced = data[24], data[25], data[28] != 0
    kept = [(0, 33)]
    orientation, key, palette, transparency = exif.UPRIGHT, None, 0, False
    count, at, pixels = 1, 33, False
    while len(kind := data[at + 4 : at + 8]) == 4 and kind.isalpha() and kind.isascii():
        if kind == END:
            break
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + length
        count += 1
        check_chunks(count)
        if kind == PIXELS:
            pixels = True
            _check_pixels(data, at, end)
            _keep(kept, at, end)
        elif kind == PALETTE and not pixels:
            palette = palette or length // 3
            _keep(kept, at, end)
        elif kind == TRANSPARENCY and not pixels and not transparency and _is_whole(data, at, end):
            transparency = True
            if colour == INDEXED:
                if 0 < length <= palette:
                    _keep(kept, at, end)
            elif length == {GREY: 2, COLOUR: 6}.get(colour):
                samples = data[at + 8 : at + 8 + length]
                key = tuple(
                    int.from_bytes(samples[i : i + 2], "big") & ((1 << bits) - 1)
                    for i in range(0, length, 2)
                )
        elif kind == EXIF and orientation == exif.UPRIGHT and _is_whole(data, at, end):
            orientation = exif.orientation(data[at + 8 : end - 4])
        elif kind[:1].isupper() and kind not in {HEADER, PALETTE}:
            raise UnreadableImageError(
                f"the PNG has a critical chunk {kind.decode()}, which no decoder knows"
            )
        at = end
    return Layout(_joined(data, kept), orientation, bits, colour, interlaced, palette, key)


def has_chunks_up_to(data: bytes, most: int) -> bool:
    """Whether a PNG has at most `most` chunks up to its end."""
    at = 8
    for _ in range(most + 1):
        if data[at + 4 : at + 8] in {b"", END}:
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def _check_pixels(data: bytes, at: int, end: int) -> None:
    """Refuse a chunk of pixels with a wrong checksum, which Pillow does not check."""
    if end <= len(data) and not _is_whole(data, at, end):
        raise UnreadableImageError("the PNG is damaged: a checksum of its pixels is wrong")


def _keep(kept: list[tuple[int, int]], start: int, end: int) -> None:
    if kept[-1][1] == start:
        kept[-1] = kept[-1][0], end
    else:
        kept.append((start, end))


def _joined(data: bytes, kept: list[tuple[int, int]]) -> bytes:
    end = kept[-1][1]
    if len(kept) == 1 and (end >= len(data) or data[end : end + 8] == END_CHUNK[:8]):
        return data
    view = memoryview(data)
    # Pixels that break off get no end chunk, since it is not known that they are complete.
    last = END_CHUNK if end <= len(data) else b""
    return b"".join((*(view[start:end] for start, end in kept), last))


def _is_whole(data: bytes, at: int, end: int) -> bool:
    """Whether a chunk has the right checksum; an ancillary chunk without it is ignored (13.1)."""
    if end > len(data):
        return False
    return zlib.crc32(memoryview(data)[at + 4 : end - 4]).to_bytes(4, "big") == data[end - 4 : end]
