"""What makes a small file expensive to read, refused before anything is decoded.

In: the bytes of an image, or the image with its header read. Out: nothing, or one of the exceptions
of `contracts.images.errors`. A format's decoder is left out of nothing here: each check bounds work
or memory that grows neither with the bytes of the file nor with the pixels of the image.
"""

import re

from PIL.BmpImagePlugin import BmpImageFile
from PIL.Image import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from contracts.images.errors import TooManyPixelsError, UnreadableImageError
from contracts.images.formats import sniff

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


def is_quick(data: bytes) -> bool:
    """Whether reading and decoding take no longer than the bytes and the pixels tell.

    Not so: a TIFF's tiles; a BMP's palette of 65,536 colours, which need not be in the file; what a
    PNG has compressed besides its pixels. WebP and GIF are left out as well, for want of proof.
    Raises `UnsupportedTypeError`.
    """
    kind = sniff(data)
    if kind == "PNG":
        chunks, compressed = count_chunks(data)
        return chunks <= MAX_COSTLY and not compressed
    return kind == "JPEG"


def check_bytes(kind: str, data: bytes) -> None:
    """Refuse a file whose structure costs more than its size and its pixels tell.

    `kind` is what `sniff` says. Raises `UnreadableImageError`.
    """
    if kind == "JPEG":
        _check_segments(data)
    if kind == "PNG":
        chunks, compressed = count_chunks(data)
        if chunks > MAX_CHUNKS:
            raise UnreadableImageError(f"the PNG has more than {MAX_CHUNKS} chunks; save it anew")
        if compressed > MAX_COSTLY:
            raise UnreadableImageError(
                f"the PNG has more than {MAX_COSTLY} compressed profiles and texts; save it without"
            )


def check_header(image: ImageFile, size: int, max_pixels: int) -> None:
    """Refuse an image of `size` bytes whose header promises too much.

    Raises `UnreadableImageError` or `TooManyPixelsError`.
    """
    check_size(image, max_pixels)
    if isinstance(image, TiffImageFile):
        _check_tiles(image, max_pixels)
    if isinstance(image, BmpImageFile):
        _check_runs(image, size)


def check_size(image: Image, max_pixels: int) -> None:
    """Refuse an image without pixels, or with more than `max_pixels`."""
    width, height = image.size
    if width < 1 or height < 1:
        raise UnreadableImageError(f"the image is {width}×{height} pixels, it has nothing to show")
    if width * height > max_pixels:
        raise TooManyPixelsError(
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
            raise UnreadableImageError(
                f"the JPEG has more than the {MAX_SCANS} scans that are accepted"
            )
        if segments > MAX_SEGMENTS:
            raise UnreadableImageError(
                f"the JPEG has more than {MAX_SEGMENTS} segments before its pixels; save it anew"
            )
        if costly > MAX_COSTLY:
            raise UnreadableImageError(
                f"the JPEG has more than {MAX_COSTLY} segments of EXIF or tables before its "
                "pixels; save it anew"
            )
        at += int.from_bytes(data[at : at + 2], "big")
    if not scans:
        gap += max(0, len(data) - at)
    if gap > MAX_GAP:
        raise UnreadableImageError(
            f"the JPEG has more than {MAX_GAP} bytes before its pixels that belong to no segment"
        )


def count_chunks(data: bytes) -> tuple[int, int]:
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
        raise UnreadableImageError(f"the TIFF header has a broken tile size: {error}") from error
    if width < 1 or length < 1:
        return  # strips, which end where the image ends
    across, down = -(-tags[WIDTH] // width), -(-tags[LENGTH] // length)
    if width * length > max_pixels or across * down * width * length > TILE_SLACK * max_pixels:
        raise TooManyPixelsError(
            f"the TIFF has {across}×{down} tiles of {width}×{length} pixels, at most {max_pixels} "
            f"pixels are accepted in one and {TILE_SLACK * max_pixels} in all; save it in strips"
        )


def _check_runs(image: BmpImageFile, size: int) -> None:
    """Refuse a run-length coded BMP that would take too long."""
    if image.tile[0].codec_name == "bmp_rle" and size + image.width * image.height > MAX_RLE:
        raise TooManyPixelsError(
            f"the run-length coded BMP has {size} bytes and {image.width}×{image.height} pixels, "
            f"at most {MAX_RLE} are accepted in all; save it uncompressed"
        )
