"""From the bytes of one image to the pixels that a model takes.

In: an encoded image (JPEG, PNG, WebP, GIF, BMP or TIFF, told by its bytes) and the model's
`ResizeRule`. Out: contiguous uint8[H, W, 3], RGB. What the header says of its size, and what else
makes a small file expensive, is checked before anything is decoded.

What becomes RGB how: an EXIF orientation is applied. Transparency is laid over white. Of 16 bits
the upper 8 are kept. CMYK is converted by the plain formula. Of an animation, or of several pages,
only the first is ever looked at, so their number needs no limit. Colour profiles are not applied,
as the evaluation pipelines of the published models do not apply them either.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.ImageFile import ImageFile

from contracts.images.errors import TooManyPixelsError, UnreadableImageError
from contracts.images.formats import sniff
from contracts.images.limits import check_bytes, check_header, check_size
from contracts.resizing import Box, Pixels, ResizeRule

# The limit is checked here, on the header; Pillow's own is a warning at a size of its choosing.
Image.MAX_IMAGE_PIXELS = None
# Pillow's own reader of uncompressed TIFF decodes as many strips as the file lists, all over the
# same pixels: a megabyte of them takes seconds, a byte of file 200 of memory. libtiff decodes each
# piece of the image once.
TiffImagePlugin.READ_LIBTIFF = True
# The most pixels of an image that is somebody's own file, where Pillow would refuse it by itself.
OWN_MAX_PIXELS = 178_956_970
# EXIF (CIPA DC-008, tag 0x0112): what to do to the stored image to see it upright.
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass
class EncodedImage:
    """An image with its header read and nothing decoded. Decoding uses it up."""

    kind: str  # Pillow's name of the format
    width: int  # as it is stored, before any turn
    height: int
    max_pixels: int
    image: ImageFile


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


def probe_file(path: Path) -> None:
    """Read no more of a file than tells whether it begins like an image; thousands take seconds.

    Raises `ImageError` or OSError. What passes can still turn out to be refused by `read_file`.
    """
    with path.open("rb") as file:
        kind = sniff(file.read(64))
        file.seek(0)
        try:
            Image.open(file, formats=(kind,)).close()
        except Exception as error:  # Pillow's readers raise anything on hostile bytes
            raise _unopenable(kind, error) from error


def open_header(data: bytes, max_pixels: int) -> EncodedImage:
    """The image with its header read and nothing decoded.

    Raises `UnsupportedTypeError`, `UnreadableImageError`, or `TooManyPixelsError` beyond
    `max_pixels`.
    """
    kind = sniff(data)
    check_bytes(kind, data)
    try:
        image = Image.open(io.BytesIO(data), formats=(kind,))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise anything on hostile bytes
        raise _unopenable(kind, error) from error
    check_header(image, len(data), max_pixels)
    return EncodedImage(kind, image.width, image.height, max_pixels, image)


def model_input(encoded: EncodedImage, rule: ResizeRule) -> Pixels:
    """The pixels of an opened image as the model takes them: contiguous uint8[H, W, 3], RGB.

    The image is used up: what it holds is freed early, although the caller still has it.
    Raises `UnreadableImageError` if it is truncated or corrupt.
    """
    try:
        # Twice the target is kept, so that the filter still has what it weighs; without antialias
        # the samples would move.
        side = 2 * max(rule.target(encoded.width, encoded.height)) if rule.antialias else None
        seen = _decode(encoded, side)
        return rule.apply(seen.image, seen.box)
    except (MemoryError, UnreadableImageError, TooManyPixelsError):
        raise
    except Exception as error:
        raise _undecodable(encoded, error) from error


def decode(encoded: EncodedImage, at_least: int | None = None) -> Upright:
    """The opened image as it is seen, in mode RGB. It is used up, as by `model_input`.

    With `at_least` a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, so that both sides keep
    that many pixels. Raises `UnreadableImageError` if the image is truncated or corrupt.
    """
    try:
        return _decode(encoded, at_least)
    except (MemoryError, UnreadableImageError, TooManyPixelsError):
        raise
    except Exception as error:  # Pillow's readers raise anything on hostile bytes
        raise _undecodable(encoded, error) from error


def _decode(encoded: EncodedImage, at_least: int | None) -> Upright:
    image: Image.Image = encoded.image
    size: tuple[float, float] | None = None
    if at_least is not None:
        drafted = encoded.image.draft(None, (at_least, at_least))
        size = drafted[1][2:] if drafted is not None else None
    image.load()
    # libwebp's two canvases, 8 bytes per pixel, would stay as long as the caller's image.
    vars(image).pop("_decoder", None)
    check_size(image, encoded.max_pixels)
    box = (0.0, 0.0, *(size or image.size))
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    if turn is not None:
        box = _turned(box, turn, *image.size)
        turned = image.transpose(turn)
        image.close()
        image = turned
    rgb = _rgb(image)
    if rgb is not image:
        image.close()
    return Upright(rgb, box if size else None)


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


def _rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB, by the rules above."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        raise UnreadableImageError(
            "the image has 32 bits per channel, whose range is not defined; save it with 8 or 16"
        )
    if image.has_transparency_data:
        if image.mode != "RGBA":  # a copy takes 4 bytes per pixel
            image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white
    # convert() copies an image that is RGB already.
    return image if image.mode == "RGB" else image.convert("RGB")


def _unopenable(kind: str, error: Exception) -> UnreadableImageError:
    return UnreadableImageError(f"the {kind} header cannot be read: {_reason(error)}")


def _undecodable(encoded: EncodedImage, error: Exception) -> UnreadableImageError:
    return UnreadableImageError(f"the {encoded.kind} image cannot be decoded: {_reason(error)}")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
