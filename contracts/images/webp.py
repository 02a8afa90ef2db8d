"""WebP (RFC 9649): the first frame, without the metadata around it.

In: the bytes of a file. Out: a `Layout`: a WebP of the first frame alone, without profile, EXIF and
XMP, and the orientation that EXIF states.
"""

from typing import NamedTuple

from contracts.images import exif
from contracts.images.errors import UnreadableImageError
from contracts.images.limits import MAX_CHUNKS

EXTENDED, FRAME, EXIF = b"VP8X", b"ANMF", b"EXIF"
PIXELS = {EXTENDED, b"ANIM", b"ALPH", b"VP8 ", b"VP8L"}
# Flags of the extended header (RFC 9649, 2.7).
ANIMATION, ALPHA = 0x02, 0x10


class Layout(NamedTuple):
    """What is known of a WebP before it is decoded."""

    data: bytes  # without metadata
    orientation: int
    size: tuple[int, int]  # width and height of the canvas


def read_layout(data: bytes) -> Layout:
    """The layout of a WebP. Raises `UnreadableImageError` if the file does not say how large it is;
    the decoder reports everything else that is broken."""
    size = _size(data)
    if data[12:16] != EXTENDED:
        return Layout(data, exif.UPRIGHT, size)  # one chunk of pixels, and no room for others
    orientation, parts, at = exif.UPRIGHT, list[bytes](), 12
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    framed = False
    for _ in range(MAX_CHUNKS):  # metadata come last; longer animations are not searched for them
        if at + 8 > end:
            break
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        after = at + 8 + length + length % 2
        if kind in PIXELS or (kind == FRAME and not framed):
            parts.append(data[at:after])
            framed = framed or kind == FRAME
        elif kind == EXIF and orientation == exif.UPRIGHT:
            orientation = exif.orientation(data[at + 8 : at + 8 + length])
        at = after
    if not parts or len(parts[0]) < 18:
        raise UnreadableImageError("the WEBP header cannot be read: its length is not that of it")
    head = bytearray(parts[0])
    # The area that a frame does not cover is transparent, even if no frame has any alpha.
    head[8] = head[8] & (ANIMATION | ALPHA) | (ALPHA if framed else 0)
    parts[0] = bytes(head)
    body = b"WEBP" + b"".join(parts)
    return Layout(b"RIFF" + len(body).to_bytes(4, "little") + body, orientation, size)


def _size(data: bytes) -> tuple[int, int]:
    """Width and height, in pixels, by the first chunk (RFC 9649, 2.5 to 2.7)."""
    kind, part = data[12:16], data[20:30]
    if kind == EXTENDED and len(part) == 10:
        return 1 + int.from_bytes(part[4:7], "little"), 1 + int.from_bytes(part[7:10], "little")
    if kind == b"VP8L" and len(part) >= 5 and part[0] == 0x2F:
        bits = int.from_bytes(part[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and part[3:6] == b"\x9d\x01\x2a" and len(part) == 10:
        width, height = (int.from_bytes(part[at : at + 2], "little") & 0x3FFF for at in (6, 8))
        return width, height
    raise UnreadableImageError("the WEBP header cannot be read: it has no size")
