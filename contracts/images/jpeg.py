"""JPEG (ITU-T T.81): the parts that determine the pixels, without the metadata around them.

In: the bytes of a file. Out: a `Layout`: a JPEG of the same pixels without application segments and
comments, the orientation that EXIF states, and what its decoding may cost. No decoder gets the
metadata, so metadata cannot make a decoder fail.
"""

import re
from typing import NamedTuple

from contracts.images import exif
from contracts.images.errors import UnreadableImageError
from contracts.images.limits import MAX_GAP, check_scans, check_segments

# T.81, table B.1: the markers that a length follows, by the rules of both Pillow (before the first
# scan) and libjpeg. After any other marker (FF 01, say) the next marker may follow at once.
SEGMENT = re.compile(rb"\xff[\xc0-\xc7\xc9-\xcf\xd9-\xef\xfe]")
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA
END = b"\xff\xd9"
JFIF, EXIF, ADOBE, APPLICATION, COMMENT = 0xE0, 0xE1, 0xEE, 0xE0, 0xFE
# The only application segments that libjpeg reads, for the colour space (JFIF 1.02; Adobe's
# technical note 5116); it ignores shorter ones. The lengths do not count the field of the length.
COLOUR_SEGMENTS = {JFIF: (b"JFIF\0", 14), ADOBE: (b"Adobe", 12)}
# Tables: Huffman, arithmetic, quantisation, restart interval.
TABLES = {0xC4, 0xCC, 0xDB, 0xDD}
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
DECODED = TABLES | FRAMES
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
# T.81, B.1.1.3: frames that no decoder of photographs reads.
STRANGE_FRAMES = {
    **dict.fromkeys((0xC3, 0xCB), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"),
}
JPEG_LS = b"\xff\xf7"  # ITU-T T.87, the marker of its frame
COMPONENTS = {1, 3, 4}  # grey, colours, CMYK
COEFFICIENTS = 64  # of a block
CHECKED_EVERY = 32  # segments


class Layout(NamedTuple):
    """What is known of a JPEG before it is decoded."""

    data: bytes  # without metadata
    orientation: int
    progressive: bool
    frame: bytes  # the frame's header without its length: T.81, B.2.2
    scans: list[bytes]  # the scans' headers without their length: T.81, B.2.3
    ended: bool  # whether an end of image follows

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as it is stored."""
        return int.from_bytes(self.frame[3:5], "big"), int.from_bytes(self.frame[1:3], "big")

    @property
    def components(self) -> int:
        """1: grey, 3: colours, 4: CMYK."""
        return self.frame[5]


def read_layout(data: bytes) -> Layout:
    """The layout of a JPEG. Raises `UnreadableImageError` where it is none, or costs too much."""
    head, first, orientation = _read_head(data)
    frame_code, frame = next(((p[1], p[4:]) for p in head if p[1] in FRAMES), (0, b""))
    _check_frame(frame_code, frame, data)
    progressive = frame_code in PROGRESSIVE
    scan = data[first + 4 : first + 2 + _length(data, first + 2)]
    scans = [scan]
    if progressive or scan[:1] != frame[5:6]:
        ended = _read_scans(data, first + 4 + len(scan), scans)
    else:  # the first scan has all components, so that it is the only one
        ended = data.rfind(END, first) >= 0
    kept = 2 + sum(map(len, head))
    whole = data if kept == first else b"".join((data[:2], *head, memoryview(data)[first:]))
    return Layout(whole, orientation, progressive, frame, scans, ended)


def _read_head(data: bytes) -> tuple[list[bytes], int, int]:
    """The segments that decoders need, where the first scan begins, and the orientation."""
    head, orientation = list[bytes](), exif.UPRIGHT
    at, segments, tables, gap = 2, 0, 0, 0
    while gap <= MAX_GAP and (found := SEGMENT.search(data, at)):
        start = found.start()
        code = data[start + 1]
        gap += start - at
        if code == START_OF_SCAN:
            check_segments(segments, tables, gap)
            return head, start, orientation
        if code == END_OF_IMAGE:
            break
        segments += 1
        if segments % CHECKED_EVERY == 0:
            check_segments(segments, tables, gap)
        at = start + 2 + _length(data, start + 2)
        if code in DECODED:
            tables += 1
            head.append(data[start:at])
        elif code in COLOUR_SEGMENTS:
            name, length = COLOUR_SEGMENTS[code]
            if at - start - 4 >= length and data.startswith(name, start + 4):
                head.append(data[start:at])
        elif code == EXIF and orientation == exif.UPRIGHT:  # the first block that says something
            block = data[start + 4 : at]
            orientation = exif.orientation(block) if block.startswith(exif.PREFIX) else orientation
    check_segments(segments, tables, gap + max(0, len(data) - at))
    raise UnreadableImageError("the JPEG header cannot be read: it ends before its pixels")


def _read_scans(data: bytes, at: int, scans: list[bytes]) -> bool:
    """Add the headers of all further scans; returns whether an end of image follows them."""
    while found := SEGMENT.search(data, at):
        start = found.start()
        at = start + 2 + _length(data, start + 2)
        if data[start + 1] == END_OF_IMAGE:
            return True
        if data[start + 1] == START_OF_SCAN:
            scans.append(data[start + 4 : at])
            check_scans(len(scans))
    return False


def _length(data: bytes, at: int) -> int:
    """The length of a segment, its field of 2 bytes included; less counts as 2, as for libjpeg."""
    return max(2, int.from_bytes(data[at : at + 2], "big"))


def is_complete(layout: Layout) -> bool:
    """Whether the scans, if each is complete, contain everything that the frame declares.

    A progressive image (T.81, G.1.1.1) needs each coefficient of each component down to its last
    bit; others need each component once.
    """
    components = layout.frame[6::3][: layout.frame[5]]
    missing = {component: [True] * COEFFICIENTS for component in components}
    for scan in layout.scans:
        count = scan[0] if scan else 0
        if len(scan) < 1 + 2 * count + 3:
            return False
        first, last, bits = scan[1 + 2 * count : 4 + 2 * count]
        for component in scan[1 : 1 + 2 * count : 2]:
            if component in missing and (not layout.progressive or not bits & 15):
                end = last + 1 if layout.progressive else COEFFICIENTS
                missing[component][first:end] = [False] * (min(end, COEFFICIENTS) - first)
    return not any(any(coefficients) for coefficients in missing.values())


def _check_frame(code: int, frame: bytes, data: bytes) -> None:
    if data[2:4] == JPEG_LS:
        raise UnreadableImageError("the file is a JPEG-LS image, which is not read; save it anew")
    if len(frame) < 6:
        raise UnreadableImageError("the JPEG header cannot be read: it has no frame header")
    if code in STRANGE_FRAMES:
        raise UnreadableImageError(
            f"the file is a {STRANGE_FRAMES[code]} JPEG, which is not read; save it as baseline"
        )
    if frame[0] != 8:
        raise UnreadableImageError(
            f"the file is a {frame[0]}-bit JPEG, only those of 8 bits are read; save it with 8"
        )
    if frame[5] not in COMPONENTS:
        raise UnreadableImageError(
            f"the JPEG has {frame[5]} colours (components), 1, 3 or 4 are read; save it in RGB"
        )
    if frame[1:3] == b"\0\0":
        raise UnreadableImageError(
            "the JPEG states its height after its pixels (DNL), which is not read; save it anew"
        )
