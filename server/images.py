"""From the bytes of one picture to the pixels that a model takes.

In: an encoded picture (JPEG, PNG, WebP, GIF, BMP or TIFF, told by its bytes) and the model's
`ResizeRule`. Out: contiguous uint8[H, W, 3], RGB. What the header says of its size, and what else
makes a small file expensive, is checked before anything is decoded.

What becomes RGB how: an EXIF orientation is applied. Transparency is laid over white. Of 16 bits
the upper 8 are kept. CMYK is converted by the plain formula. Of an animation, or of several pages,
only the first is ever looked at, so their number needs no limit. Colour profiles are not applied,
as the evaluation pipelines of the published models do not apply them either.
"""

import io
import re

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from server.problems import TooManyPixels, UnreadableImage, UnsupportedType
from server.resizing import Pixels, ResizeRule

# The limit is checked here, on the header; Pillow's own is a warning at a size of its choosing.
Image.MAX_IMAGE_PIXELS = None
# EXIF (CIPA DC-008, tag 0x0112): what to do to the stored picture to see it upright.
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
NAMES = "JPEG, PNG, WebP, GIF, BMP or TIFF"
# Each scan of a progressive JPEG goes over the whole picture, and an empty one takes a dozen bytes
# of file: a few kilobytes could keep a core busy for minutes. Cameras and tools write about 10.
MAX_SCANS = 100
# ITU-T T.81, B.1.1.2: in coded data FF is followed by 0 or a restart marker, never by another.
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
END_OF_IMAGE, START_OF_IMAGE, START_OF_SCAN = 0xD9, 0xD8, 0xDA
# TIFF 6.0, section 15: a tile is decoded as a whole, however little of it the picture shows.
TILE_WIDTH, TILE_LENGTH = 322, 323


def sniff(data: bytes) -> str:
    """Pillow's name of the format that `data` begins like; raises `UnsupportedType`."""
    head = data[:12]
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    raise UnsupportedType(f"the bytes begin like no {NAMES} picture: {head.hex(' ')}")


def open_header(data: bytes, max_pixels: int) -> Image.Image:
    """The picture with its header read and nothing decoded.

    Raises `UnsupportedType`, `UnreadableImage`, or `TooManyPixels` beyond `max_pixels`.
    """
    kind = sniff(data)
    try:
        image = Image.open(io.BytesIO(data), formats=(kind,))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise anything on hostile bytes
        raise UnreadableImage(f"the {kind} header cannot be read: {_reason(error)}") from error
    _check_size(image, max_pixels)
    _check_effort(image, data, max_pixels)
    return image


def decode(image: Image.Image, rule: ResizeRule, max_pixels: int) -> Pixels:
    """The pixels of an opened picture as the model takes them: contiguous uint8[H, W, 3], RGB.

    Raises `UnreadableImage` if it is truncated or corrupt.
    """
    kind = image.format
    try:
        size: tuple[float, float] | None = None
        if rule.antialias:
            # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size. Twice the target is kept, so
            # that the filter still has what it weighs; without antialias the samples would move.
            side = 2 * max(rule.target(*image.size))
            drafted = image.draft(None, (side, side))
            size = drafted[1][2:] if drafted is not None else None
        image.load()
        _check_size(image, max_pixels)
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
        if turn is not None:
            image, size = image.transpose(turn), None
        return rule.apply(_rgb(image), size)
    except (MemoryError, UnreadableImage, TooManyPixels):
        raise
    except Exception as error:  # Pillow's readers raise anything on hostile bytes
        raise UnreadableImage(f"the {kind} picture cannot be decoded: {_reason(error)}") from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise UnreadableImage(f"the picture is {width}×{height} pixels, it has nothing to show")
    if width * height > max_pixels:
        raise TooManyPixels(
            f"the picture has {width}×{height} = {width * height} pixels, at most {max_pixels} "
            "are accepted; scale it down"
        )


def _check_effort(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuse what takes far more time or memory than its size tells."""
    if image.format in {"JPEG", "MPO"} and _scans(data) > MAX_SCANS:
        raise UnreadableImage(f"the JPEG has more than the {MAX_SCANS} scans that are accepted")
    if isinstance(image, TiffImageFile):
        try:
            tile = int(image.tag_v2.get(TILE_WIDTH, 0)) * int(image.tag_v2.get(TILE_LENGTH, 0))
        except (TypeError, ValueError) as error:
            raise UnreadableImage(f"the TIFF header has a broken tile size: {error}") from error
        if tile > max_pixels:
            raise TooManyPixels(
                f"the TIFF has tiles of {tile} pixels, at most {max_pixels} are accepted"
            )


def _scans(data: bytes) -> int:
    """Scans of a JPEG's first picture, counted up to one more than `MAX_SCANS`."""
    scans, at = 0, 2
    while scans <= MAX_SCANS and (found := MARKER.search(data, at)):
        code, at = data[found.end() - 1], found.end()
        if code == END_OF_IMAGE:
            break
        if code != START_OF_IMAGE:
            at += int.from_bytes(data[at : at + 2], "big")
        scans += code == START_OF_SCAN
    return scans


def _rgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB, by the rules above."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        raise UnreadableImage(
            "the picture has 32 bits per channel, whose range is not defined; save it with 8 or 16"
        )
    if image.has_transparency_data:
        if image.mode != "RGBA":  # a copy takes 4 bytes per pixel
            image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white
    # convert() copies a picture that is RGB already.
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
