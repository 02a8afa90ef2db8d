"""From the bytes of one image to the pixels that a model takes.

In: an encoded image (told by its bytes) and the model's `ResizeRule`. Out: contiguous
uint8[H, W, 3], RGB. What the header says of its size, and what else makes a small file expensive,
is checked before anything is decoded.

What becomes RGB how is in docs/images.md: an EXIF orientation is applied, and no other metadata is
read; transparency is laid over white. Of an animation, or of several pages, only the first is ever
looked at, so their number needs no limit. Colour profiles are not applied, as the evaluation
pipelines of the published models do not apply them either.
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

# The most pixels of an image that is somebody's own file, where Pillow would refuse it by itself.
OWN_MAX_PIXELS = 178_956_970
# A JPEG is decoded at a fraction of its size if that leaves so many times the target on both sides:
# the fewer, the more a fraction changes the model's input. Of 63 photographs the worst is 0.21 of
# 255 off in the mean with the first, 0.95 with the second. The second is for more than
# SMALL_PIXELS, which take more than a dozen milliseconds to decode whole.
KEPT_OF_SMALL, KEPT_OF_LARGE = 5.5, 2
SMALL_PIXELS = 2**21
# A Python object as its own text has it, or bytes as hexadecimal digits: nothing for people.
UNSPEAKABLE = re.compile(r"<[\w.]+ object|0x[0-9a-f]{4}|\\x[0-9a-f]{2}")


@dataclass
class Upright:
    """An image as it is seen: in mode RGB, turned as its EXIF says.

    `box` (left, top, right, bottom) is the part that is the image, where a JPEG was decoded at a
    fraction of its size: its last column and row can lie half beyond the edge. None: all of it.
    """

    image: Image.Image
    box: Box | None = None


def read(data: bytes, rule: ResizeRule, max_pixels: int = OWN_MAX_PIXELS) -> Pixels:
    """The pixels that a model takes of an encoded image: contiguous uint8[H, W, 3], RGB.

    Raises `ImageError`.
    """
    return model_input(open_header(data, max_pixels), rule)


def read_file(path: Path, rule: ResizeRule, max_pixels: int = OWN_MAX_PIXELS) -> Pixels:
    """`read` of a file. Raises `ImageError`, and OSError where the file cannot be read."""
    return read(path.read_bytes(), rule, max_pixels)


def is_quick(data: bytes) -> bool:
    """Whether reading and decoding take no longer than the bytes and the pixels tell.

    Not so: a TIFF's tiles; a BMP's palette of 65,536 colours, which need not be in the file; a PNG
    of many chunks. WebP, GIF and AVIF are left out as well, for want of proof.
    Raises `UnsupportedTypeError`.
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
    """The opened image as it is seen, in mode RGB. It is used up, as by `model_input`.

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
    """The pixels of an opened image as the model takes them: contiguous uint8[H, W, 3], RGB.

    The image is used up: what it holds is freed early, although the caller still has it.
    Raises `UnreadableImageError` if it is truncated or corrupt.
    """
    width, height = encoded.width, encoded.height
    if encoded.orientation in LYING:
        width, height = height, width
    seen = decode(encoded, least_side(width, height, rule))
    return rule.apply(seen.image, seen.box)


def least_side(width: int, height: int, rule: ResizeRule) -> int | None:
    """Of how many pixels both sides of a JPEG must stay when it is decoded at a fraction of its
    size for this rule; None: it is decoded whole, being too small, or since without antialias the
    samples would move.
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
