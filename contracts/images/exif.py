"""The only field of EXIF that concerns pixels: the orientation of the stored image.

In: a block of EXIF, from any file. Out: an orientation, 1 to 8. Nothing else of EXIF is read, and a
broken field is ignored: an image is not refused for its metadata.
"""

import struct

from PIL import Image

# CIPA DC-008, tag 0x0112: what to do to the stored image to see it upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
UPRIGHT = 1
LYING = {5, 6, 7, 8}  # width and height change places
ORIENTATION = 0x0112
PREFIX = b"Exif\0\0"
# TIFF 6.0, section 2: a type of the tag's value, by its number.
INTEGERS = {1: "B", 3: "H", 4: "I"}
# A directory is read in Python. Cameras write about 20 entries.
MAX_ENTRIES = 1000


def orientation(exif: bytes) -> int:
    """The orientation that a block of EXIF states, with or without its prefix; 1 if it does not."""
    exif = exif.removeprefix(PREFIX)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return UPRIGHT
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(min(count, MAX_ENTRIES)):
            start = at + 2 + 12 * entry
            tag, kind, values = struct.unpack_from(order + "HHI", exif, start)
            if tag == ORIENTATION and kind in INTEGERS and values == 1:
                (value,) = struct.unpack_from(order + INTEGERS[kind], exif, start + 8)
                return value if value in TURNS else UPRIGHT
    except struct.error:  # the block ends before
        pass
    return UPRIGHT
