"""Limits for whatever makes a small file expensive to read, checked before anything is decoded.

In: counts from a file's structure, or the image with its header read. Out: nothing, or one of the
exceptions of `contracts.images.errors`. Each check bounds work or memory that grows neither with
the bytes of the file nor with the pixels of the image.
"""

from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile

from contracts.images.errors import TooManyPixelsError, UnreadableImageError

# Each scan of a progressive JPEG goes over the whole image, and an empty one takes a dozen bytes
# of file: a few kilobytes could keep a core busy for minutes. Cameras and tools write about 10.
MAX_SCANS = 100
# Segments of a JPEG are read one by one in Python, and a segment may take only 4 bytes of the file.
# 512 full segments hold the 32 MiB of a whole body at --max-body-bytes, and a profile has at most
# 255.
MAX_SEGMENTS = 1000
# Bytes before the first scan that belong to no segment. Some may be fill bytes before a marker
# (T.81, B.1.1.2).
MAX_GAP = 16 * 2**10
# Chunks of a PNG or a WebP are read one by one in Python. Encoders write the pixels of a PNG in
# chunks of 8 KiB and more: 4,096 in 32 MiB.
MAX_CHUNKS = 10_000
# Pillow takes ten times a segment's bytes for a table or a frame header of a JPEG, and reads a
# PNG's chunks in Python. Real images have about 10 of these.
MAX_COSTLY = 32
# Sub-blocks of a GIF's comments have at most 255 bytes, and are read one by one in Python: this
# many hold 24 MB.
MAX_BLOCKS = 100_000
# A TIFF's directory is read in Python. Real ones have 20 to 100 tags.
MAX_TAGS = 4096
# Pillow decodes a run-length coded BMP in Python, and fills its lines pixel by pixel: a few
# kilobytes could keep a core, and the lock of the interpreter, for seconds. The limit is on the sum
# of bytes and pixels.
MAX_RLE = 4 * 2**20
# Tiles of a TIFF reach over the right and the lower edge, and each is decoded as a whole. That adds
# a few percent to a large image.
TILE_SLACK = 2


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Refuse an image without pixels, or with more than `max_pixels`."""
    width, height = size
    if width < 1 or height < 1:
        raise UnreadableImageError(f"the image is {width}×{height} pixels, it has nothing to show")
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"the image has {width}×{height} = {width * height} pixels, at most {max_pixels} "
            "are accepted; scale it down"
        )


def check_scans(count: int) -> None:
    """Refuse a JPEG of too many scans."""
    if count > MAX_SCANS:
        raise UnreadableImageError(
            f"the JPEG has more than the {MAX_SCANS} scans that are accepted"
        )


def check_segments(segments: int, tables: int, gap: int) -> None:
    """Refuse a JPEG whose head takes far more time or memory than its size suggests.

    The arguments count what precedes the first scan: all segments, the segments with tables or
    frame headers, and the bytes in no segment.
    """
    _check_count(segments, MAX_SEGMENTS, "JPEG", "segments before its pixels")
    _check_count(tables, MAX_COSTLY, "JPEG", "segments of tables before its pixels")
    if gap > MAX_GAP:
        raise UnreadableImageError(
            f"the JPEG has more than {MAX_GAP} bytes before its pixels that belong to no segment"
        )


def check_chunks(count: int) -> None:
    """Refuse a PNG of too many chunks."""
    _check_count(count, MAX_CHUNKS, "PNG", "chunks")


def check_blocks(count: int) -> None:
    """Refuse a GIF of too many blocks before its first frame."""
    _check_count(count, MAX_BLOCKS, "GIF", "blocks before its pixels")


def check_tags(count: int) -> None:
    """Refuse a TIFF of too many tags."""
    _check_count(count, MAX_TAGS, "TIFF", "tags")


def _check_count(count: int, most: int, kind: str, what: str) -> None:
    if count > most:
        raise UnreadableImageError(f"the {kind} has more than {most} {what}; save it anew")


def check_tiles(size: tuple[int, int], tile: tuple[int, int], max_pixels: int) -> None:
    """Refuse a TIFF whose tiles, which may share their bytes, have far too many pixels.

    Each of `size` and `tile` is width and height in pixels.
    """
    width, height = tile
    across, down = -(-size[0] // width), -(-size[1] // height)
    if width * height > max_pixels or across * down * width * height > TILE_SLACK * max_pixels:
        raise TooManyPixelsError(
            f"the TIFF has {across}×{down} tiles of {width}×{height} pixels, at most {max_pixels} "
            f"pixels are accepted in one and {TILE_SLACK * max_pixels} in all; save it in strips"
        )


def check_runs(image: ImageFile, size: int) -> None:
    """Refuse a run-length coded BMP of `size` bytes that would take too long."""
    if not isinstance(image, BmpImageFile) or image.tile[0].codec_name != "bmp_rle":
        return
    if size + image.width * image.height > MAX_RLE:
        raise TooManyPixelsError(
            f"the run-length coded BMP has {size} bytes and {image.width}×{image.height} pixels, "
            f"at most {MAX_RLE} are accepted in all; save it uncompressed"
        )
