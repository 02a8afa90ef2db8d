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
import re

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.BmpImagePlugin import BmpImageFile
from PIL.TiffImagePlugin import TiffImageFile

from contracts.resizing import Pixels, ResizeRule
from server.problems import TooManyPixels, UnreadableImage, UnsupportedType

# The limit is checked here, on the header; Pillow's own is a warning at a size of its choosing.
Image.MAX_IMAGE_PIXELS = None
# Pillow's own reader of uncompressed TIFF decodes as many strips as the file lists, all over the
# same pixels: a megabyte of them takes seconds, a byte of file 200 of memory. libtiff decodes each
# piece of the image once.
TiffImagePlugin.READ_LIBTIFF = True
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
NAMES = "JPEG, PNG, WebP, GIF, BMP or TIFF"
# Each scan of a progressive JPEG goes over the whole image, and an empty one takes a dozen bytes
# of file: a few kilobytes could keep a core busy for minutes. Cameras and tools write about 10.
MAX_SCANS = 100
# Pillow keeps a hundred bytes for each segment before the first scan, which may have 4 in the file.
# 512 segments hold the 32 MiB of a whole body at --max-body-bytes, and profiles end at 255.
MAX_SEGMENTS = 1000
# Bytes before the first scan that belong to no segment: Pillow reads them one by one. Some may fill
# up to the next (T.81, B.1.1.2).
MAX_GAP = 16 * 2**10
# Pillow goes through the chunks of a PNG in Python, and keeps those that it does not know. Encoders
# write the pixels in chunks of 8 KiB and more: 4,096 in 32 MiB.
MAX_CHUNKS = 10_000
# Pillow copies all EXIF so far with every further segment of it, and takes ten times a segment's
# bytes for a table or a frame header. A PNG's profile or text is inflated up to a thousand times,
# to 1 MiB (PngImagePlugin.MAX_TEXT_CHUNK). Real images have about 10 of these.
MAX_COSTLY = 32
# ITU-T T.81, table B.1: the markers with a length after them, by the rules of both Pillow (before
# the first scan) and libjpeg. After another (FF 01, say) the next marker may follow at once.
SEGMENT = re.compile(rb"\xff[\xc0-\xc7\xc9-\xcf\xd9-\xef\xfe]")
END_OF_IMAGE, START_OF_SCAN, APPLICATION = 0xD9, 0xDA, 0xE0
# PNG, 11.3.3: the chunks that may be compressed.
COMPRESSED = {b"iCCP", b"iTXt", b"zTXt"}
# Pillow goes through a run-length coded BMP in Python, and fills its lines pixel by pixel: a few
# kilobytes could keep a core, and the lock of the interpreter, for seconds. Bytes and pixels.
MAX_RLE = 4 * 2**20
# TIFF 6.0, sections 3 and 15.
WIDTH, LENGTH, TILE_WIDTH, TILE_LENGTH = 256, 257, 322, 323
# Tiles reach over the right and the lower edge, and each is decoded as a whole. Where the image
# is large, they add a few percent.
TILE_SLACK = 2


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
    raise UnsupportedType(f"the bytes begin like no {NAMES} image: {head.hex(' ')}")


def is_quick(data: bytes) -> bool:
    """Whether reading and decoding take no longer than the bytes and the pixels tell.

    Not so: a TIFF's tiles; a BMP's palette of 65,536 colours, which need not be in the file; what a
    PNG has compressed besides its pixels. WebP and GIF are left out as well, for want of proof.
    Raises `UnsupportedType`.
    """
    kind = sniff(data)
    if kind == "PNG":
        chunks, compressed = _chunks(data)
        return chunks <= MAX_COSTLY and not compressed
    return kind == "JPEG"


def open_header(data: bytes, max_pixels: int) -> Image.Image:
    """The image with its header read and nothing decoded.

    Raises `UnsupportedType`, `UnreadableImage`, or `TooManyPixels` beyond `max_pixels`.
    """
    kind = sniff(data)
    if kind == "JPEG":
        _check_segments(data)
    if kind == "PNG":
        chunks, compressed = _chunks(data)
        if chunks > MAX_CHUNKS:
            raise UnreadableImage(f"the PNG has more than {MAX_CHUNKS} chunks; save it anew")
        if compressed > MAX_COSTLY:
            raise UnreadableImage(
                f"the PNG has more than {MAX_COSTLY} compressed profiles and texts; save it without"
            )
    try:
        image = Image.open(io.BytesIO(data), formats=(kind,))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise anything on hostile bytes
        raise UnreadableImage(f"the {kind} header cannot be read: {_reason(error)}") from error
    _check_size(image, max_pixels)
    if isinstance(image, TiffImageFile):
        _check_tiles(image, max_pixels)
    if isinstance(image, BmpImageFile):
        _check_runs(image, len(data))
    return image


def decode(image: Image.Image, rule: ResizeRule, max_pixels: int) -> Pixels:
    """The pixels of an opened image as the model takes them: contiguous uint8[H, W, 3], RGB.

    The image is used up: what it holds is freed early, although the caller still has it.
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
        # libwebp's two canvases, 8 bytes per pixel, would stay as long as the caller's image.
        vars(image).pop("_decoder", None)
        _check_size(image, max_pixels)
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
        if turn is not None:
            turned = image.transpose(turn)
            image.close()
            image, size = turned, None
        rgb = _rgb(image)
        if rgb is not image:
            image.close()
        return rule.apply(rgb, size)
    except (MemoryError, UnreadableImage, TooManyPixels):
        raise
    except Exception as error:  # Pillow's readers raise anything on hostile bytes
        raise UnreadableImage(f"the {kind} image cannot be decoded: {_reason(error)}") from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise UnreadableImage(f"the image is {width}×{height} pixels, it has nothing to show")
    if width * height > max_pixels:
        raise TooManyPixels(
            f"the image has {width}×{height} = {width * height} pixels, at most {max_pixels} "
            "are accepted; scale it down"
        )


def _check_segments(data: bytes) -> None:
    """Refuse a JPEG whose first image takes far more time or memory than its size tells."""
    scans = segments = costly = gap = 0
    at = 2
    while gap <= MAX_GAP and (found := SEGMENT.search(data, at)):
        code = data[found.end() - 1]
        if not scans:
            gap += found.start() - at
        at = found.end()
        if code == END_OF_IMAGE:
            if scans:
                break
            gap += 2  # Pillow reads on
            continue
        if code == START_OF_SCAN:
            scans += 1
        elif not scans:
            segments += 1
            costly += code < APPLICATION or data.startswith(b"Exif\0\0", at + 2)
        if scans > MAX_SCANS:
            raise UnreadableImage(f"the JPEG has more than the {MAX_SCANS} scans that are accepted")
        if segments > MAX_SEGMENTS:
            raise UnreadableImage(
                f"the JPEG has more than {MAX_SEGMENTS} segments before its pixels; save it anew"
            )
        if costly > MAX_COSTLY:
            raise UnreadableImage(
                f"the JPEG has more than {MAX_COSTLY} segments of EXIF or tables before its "
                "pixels; save it anew"
            )
        at += int.from_bytes(data[at : at + 2], "big")
    if not scans:
        gap += max(0, len(data) - at)
    if gap > MAX_GAP:
        raise UnreadableImage(
            f"the JPEG has more than {MAX_GAP} bytes before its pixels that belong to no segment"
        )


def _chunks(data: bytes) -> tuple[int, int]:
    """The chunks of a PNG, to one more than `MAX_CHUNKS`; those that may be compressed texts."""
    count, compressed, at = 0, 0, 8
    while count <= MAX_CHUNKS and (kind := data[at + 4 : at + 8]):
        if kind == b"IEND":
            break  # Pillow reads no further
        count += 1
        compressed += kind in COMPRESSED
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return count, compressed


def _check_tiles(image: TiffImageFile, max_pixels: int) -> None:
    """Refuse a TIFF whose tiles, which may all be the same bytes, are far more than it shows."""
    tags = image.tag_v2
    try:
        width, length = int(tags.get(TILE_WIDTH, 0)), int(tags.get(TILE_LENGTH, 0))
    except (TypeError, ValueError, OverflowError) as error:
        raise UnreadableImage(f"the TIFF header has a broken tile size: {error}") from error
    if width < 1 or length < 1:
        return  # strips, which end where the image ends
    across, down = -(-tags[WIDTH] // width), -(-tags[LENGTH] // length)
    if width * length > max_pixels or across * down * width * length > TILE_SLACK * max_pixels:
        raise TooManyPixels(
            f"the TIFF has {across}×{down} tiles of {width}×{length} pixels, at most {max_pixels} "
            f"pixels are accepted in one and {TILE_SLACK * max_pixels} in all; save it in strips"
        )


def _check_runs(image: BmpImageFile, size: int) -> None:
    """Refuse a run-length coded BMP that would take too long."""
    if image.tile[0].codec_name == "bmp_rle" and size + image.width * image.height > MAX_RLE:
        raise TooManyPixels(
            f"the run-length coded BMP has {size} bytes and {image.width}×{image.height} pixels, "
            f"at most {MAX_RLE} are accepted in all; save it uncompressed"
        )


def _rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB, by the rules above."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        raise UnreadableImage(
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


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
