"""GIF (version 89a): the first frame, without comments and application data.

In: the bytes of a file. Out: a GIF of the first frame alone, of the same pixels.
"""

from contracts.images.errors import UnreadableImageError
from contracts.images.limits import check_blocks

EXTENSION, IMAGE, GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9


def first_frame(data: bytes) -> bytes:
    """The header, the first frame with its control block, and the rest of the file as it is."""
    if len(data) < 13:
        raise UnreadableImageError("the GIF header cannot be read: it ends before its pixels")
    head = 13 + _palette(data[10])
    at, blocks, control = head, 0, b""
    while at < len(data) and data[at] != IMAGE:
        if data[at] != EXTENSION:
            # Zeros and rubbish between blocks, which browsers and Pillow skip.
            at += 1
            blocks += 1
            check_blocks(blocks)
            continue
        start, at = at, at + 2
        while size := data[at] if at < len(data) else 0:
            at += 1 + size
            blocks += 1
            check_blocks(blocks)
        at += 1
        if data[start + 1 : start + 2] == bytes((GRAPHIC_CONTROL,)):
            control = data[start:at]
    if at >= len(data):
        raise UnreadableImageError("the GIF header cannot be read: it ends before its pixels")
    if at - head == len(control):
        return data
    return b"".join((data[:head], control, memoryview(data)[at:]))


def _palette(flags: int) -> int:
    """The length in bytes of the table of colours that a descriptor announces."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
