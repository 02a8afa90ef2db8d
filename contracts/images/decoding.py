"""From the bytes of one image to the pixels that a model takes.

In: an encoded image (its bytes tell the format) and the model's `ResizeRule`. Out: contiguous
uint8[H, W, 3], RGB. The size in the header, and everything else that makes a small file expensive,
is checked before anything is decoded.

docs/images.md says how each kind of image becomes RGB: an EXIF orientation is applied, and no other
metadata is read; transparency is laid over white. Only the first frame of an animation and the
first page of a file are read, so the number of frames or pages needs no limit. Colour profiles are
not applied, as the evaluation pipelines of the published models do not apply them either.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from contracts.images import png
from contracts.images.encoded import FORMATS, EncodedImage
from contracts.images.errors import ImageError, UnreadableImageError
from contracts.images.exif import LYING, TURNS
from contracts.images.formats import sniff
from contracts.images.limits import MAX_COSTLY
from contracts.resizing import Box, Pixels, ResizeRule

# The most pixels of an image from a user's own files: beyond this number Pillow by default refuses.
OWN_MAX_PIXELS = 178_956_970
# A JPEG is decoded at a fraction of its size if both sides keep at least this many times the target
# size. A smaller factor changes the model's input more: for the worst of 63 photographs the mean
# difference is 0.21 of 255 with the first factor and 0.95 with the second. The second is for images
# of more than SMALL_PIXELS, which take more than a dozen milliseconds to decode whole.
KEPT_OF_SMALL, KEPT_OF_LARGE = 5.5, 2
SMALL_PIXELS = 2**21
# The repr of a Python object, or bytes as hexadecimal digits: people cannot read these.
UNSPEAKABLE = re.compile(r"<[\w.]+ object|0x[0-9a-f]{4}|\\x[0-9a-f]{2}")


@dataclass
class Upright:
    """An image as a viewer shows it: in mode RGB, turned as its EXIF says.

    `box` (left, top, right, bottom) is the part that the image covers if a JPEG was decoded at a
    fraction of its size: the last column and row can lie half beyond the edge. None: all of it.
    """

    image: Image.Image
    box: Box | None = None


def read(data: bytes, rule: ResizeRule, max_pixels: int = OWN_MAX_PIXELS) -> Pixels:
    """The model's input for an encoded image: contiguous uint8[H, W, 3], RGB.

    Raises `ImageError`.
    """
    return model_input(open_header(data, max_pixels), rule)


def read_file(path: Path, rule: ResizeRule, max_pixels: int = OWN_MAX_PIXELS) -> Pixels:
    """`read` of a file. Raises `ImageError`, and OSError where the file cannot be read."""
    return read(path.read_bytes(), rule, max_pixels)


def is_quick(data: bytes) -> bool:
    """Whether the time for reading and decoding is bounded by the number of bytes and pixels.

    It is not bounded for a TIFF's tiles, for a BMP's palette of 65,536 colours, which need not be
    in the file, and for a PNG of many chunks. WebP, GIF and AVIF give False as well: no bound is
    proven. Raises `UnsupportedTypeError`.
    """
    kind = sniff(data)
    return kind == "JPEG" or (kind == "PNG" and png.has_chunks_up_to(data, MAX_COSTLY))


def open_header(data: bytes, max_pixels: int) -> EncodedImage:
    """The image with its header read and nothing decoded.

    Raises `UnsupportedTypeError`, `UnreadableImageError`, or `TooManyPixelsError` beyond
    `max_pixels`.
    """
    kind = sniff(data)
    try:
        encoded = FORMATS[kind](data, max_pixels)
    except (MemoryError, ImageError):
        raise
    except Exception as error:  # Pillow's readers raise anything on hostile bytes
        raise UnreadableImageError(f"the {kind} header cannot be read: {_reason(error)}") from error
    return encoded


def decode(encoded: EncodedImage, at_least: int | None = None) -> Upright:
    """The opened image as a viewer shows it, in mode RGB. As in `model_input`, it is used up.

    With `at_least` a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, so that both sides keep
    that many pixels. Raises `UnreadableImageError` if the image is truncated or corrupt.
    """
    try:
        box = encoded.load(at_least)
        encoded.check_decoded()
        rgb = encoded.rgb()
        if rgb is not encoded.image:
            encoded.image.close()
        if (turn := TURNS.get(encoded.orientation)) is None:
            return Upright(rgb, box)
        seen = Upright(rgb.transpose(turn), box and _turned(box, turn, *rgb.size))
        rgb.close()
    except (MemoryError, ImageError):
        raise
    except Exception as error:  # Pillow's readers raise anything on hostile bytes
        raise UnreadableImageError(
            f"the {encoded.kind} image cannot be decoded: {_reason(error)}"
        ) from error
    return seen


def model_input(encoded: EncodedImage, rule: ResizeRule) -> Pixels:
    """The model's input for an opened image: contiguous uint8[H, W, 3], RGB.

    The image is used up: its memory is freed early, although the caller still has the object.
    Raises `UnreadableImageError` if it is truncated or corrupt.
    """
    width, height = encoded.width, encoded.height
    if encoded.orientation in LYING:
        width, height = height, width
    seen = decode(encoded, least_side(width, height, rule))
    return rule.apply(seen.image, seen.box)


def least_side(width: int, height: int, rule: ResizeRule) -> int | None:
    """The least number of pixels that both sides of a JPEG must keep when it is decoded at a
    fraction of its size for this rule. None: the JPEG is decoded whole, because it is too small or
    because without antialias the samples would move.
    """
    if not rule.antialias:
        return None
    kept = KEPT_OF_SMALL if width * height <= SMALL_PIXELS else KEPT_OF_LARGE
    side = math.ceil(kept * max(rule.target(width, height)))
    return side if min(width, height) >= 2 * side else None


def _turned(box: Box, turn: Image.Transpose, width: int, height: int) -> Box:
    """Where a box of an image of `width` × `height` lies after the turn."""
    left, top, right, bottom = box
    mirrored = (width - right, width - left)
    flipped = (height - bottom, height - top)
    across, down = {
        Image.Transpose.FLIP_LEFT_RIGHT: (mirrored, (top, bottom)),
        Image.Transpose.ROTATE_180: (mirrored, flipped),
        Image.Transpose.FLIP_TOP_BOTTOM: ((left, right), flipped),
        Image.Transpose.TRANSPOSE: ((top, bottom), (left, right)),
        Image.Transpose.ROTATE_270: (flipped, (left, right)),
        Image.Transpose.TRANSVERSE: (flipped, mirrored),
        Image.Transpose.ROTATE_90: ((top, bottom), mirrored),
    }[turn]
    return across[0], down[0], across[1], down[1]


def _reason(error: Exception) -> str:
    reason = str(error)
    if not reason or UNSPEAKABLE.search(reason):
        return type(error).__name__
    return reason
