"""The cost of decoding an image, computed from its header alone before any work.

In: the bytes of an encoded image and the model's `ResizeRule`. Out: a `Price` in seconds of CPU and
bytes of memory, or the `Problem` of an image that would cost too much: more than `CEILING` honest
progressive JPEGs of --max-pixels, or more memory than `BYTES_PER_PIXEL` times --max-pixels. Formats
that cannot keep these limits at the full size thereby get a lower limit of pixels.

The factors are nanoseconds on one core of an AMD EPYC (Zen 4) with Pillow 13.0, from the files of
tests/server/serving/images/bombs/ (`python -m tests.server.serving.images.measure`), rounded up.
Only their ratios matter, since the unit is an honest JPEG.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

from contracts.images.decoding import least_side
from contracts.resizing import ResizeRule
from server.problems import TooManyPixels, UnreadableImage
from server.serving.images import headers, jpeg_scans
from server.serving.images.decoding import open_header
from server.serving.images.headers import Header
from server.serving.images.jpeg_scans import Structure

# The most that an image may cost, in honest progressive JPEGs of --max-pixels. No image that is
# decoded takes more than 3; the rest is for the differences of another machine.
CEILING = 2.3
BYTES_PER_PIXEL = 16
# Added to both limits: what the smallest image may take.
ALLOWED_SECONDS, ALLOWED_BYTES = 0.005, 32 * 2**20
# A thread cannot be ended, so it gets no image that could take longer, or more memory.
THREAD_SECONDS = 0.1
THREAD_BYTES = 64 * 2**20

# The unit: an honest progressive JPEG, as phones and image editors write it (4:2:0, ten scans, 0.13
# bytes for each pixel), decoded at 1/1, 1/2, 1/4 and 1/8 of its size.
HONEST_NS = {1: 15.0, 2: 11.0, 4: 9.0, 8: 8.0}

# For every format: a row of pixels has a pointer (Pillow's `image` table), and the resize may have
# as many coefficients as there are rows and columns.
ROW_NS, COLUMN_NS, EDGE_BYTES = 55.0, 30.0, 48
# An image that is turned, as its EXIF or a property of its own says, takes another image of RGB.
TURN_NS, TURN_BYTES = 6.5, 1.0
# Output of the resize: it may be larger than the image.
TARGET_NS, TARGET_BYTES = 30.0, 24

# JPEG (libjpeg-turbo): for each pixel at 1/1, 1/2, 1/4 and 1/8 of the size; for each sample that is
# kept as a coefficient, and for each of them again in each scan.
PIXEL_NS, PIXEL_BYTES = {1: 13.0, 2: 5.0, 4: 2.0, 8: 1.0}, {1: 9.5, 2: 2.5, 4: 1.0, 8: 1.0}
COEFFICIENT_NS, SCAN_NS = 1.2, 0.62
# Without antialias the whole image becomes an array.
ARRAY_BYTES = 6.0
# A decision of the arithmetic decoder takes a tenth of a bit or less, so the bytes do not bound it.
ARITHMETIC_NS = 9.0
JPEG_BYTE_NS = 13.0
# PNG (zlib-ng), for each byte of a row: inflating and unfiltering; the worst stream inflates more
# slowly, or has a new table for every few bytes of the file.
PNG_ROW_NS, PNG_WORST_ROW_NS, PNG_BYTE_NS, PNG_WORST_BYTE_NS = 2.9, 8.0, 5.0, 120.0
# Making RGB of the pixels: opaque ones, those laid over white, interlaced ones, those of 16 bits.
OPAQUE_NS, TRANSPARENT_NS, INTERLACED_NS, DEEP_NS = 9.5, 15.5, 3.0, 4.5
# A transparent colour of 16 bits is compared with all of them.
DEEP_KEY_NS = 60.0
OPAQUE_BYTES, TRANSPARENT_BYTES = 8.0, 14.0
# WebP (libwebp): two canvases, the bytes and the image.
WEBP_NS, WEBP_TRANSPARENT_NS, WEBP_ROW_NS, WEBP_BYTE_NS, WEBP_BYTES = 17.5, 24.0, 2600.0, 36.0, 17.5
GIF_NS, GIF_TRANSPARENT_NS, GIF_BYTE_NS, GIF_BYTES = 18.0, 21.0, 5.0, 12.0
BMP_NS, BMP_BYTES = 7.0, 6.0
# Each byte and each pixel of a run-length coded BMP goes through Python.
BMP_RUN_NS = 120.0
BMP_RUNS = {1, 2}
# TIFF (libtiff): for each strip or tile, which is read in Python as well.
TIFF_PIECE_NS, TIFF_PIECE_BYTES, TIFF_BYTES = 700.0, 170, 11.0
# For each pixel, by PhotometricInterpretation: CMYK, YCbCr and CIELAB; others; alpha on top.
TIFF_COLOUR_NS = {5: 10.5, 6: 8.0, 8: 22.0}
TIFF_NS, TIFF_ALPHA_NS, TIFF_ALPHA_BYTES = 6.5, 6.0, 1.0
# Grey of 16 bits is scaled in numpy.
TIFF_DEEP_GREY_NS = 8.0
# By compression, for each byte of a row (predicted or not) and of the file: none, LZW, deflate,
# zstd, LZMA; others.
TIFF_CODING_NS = {
    1: (0.6, 1.0),
    5: (1.0, 8.0),
    8: (2.9, 8.0),
    32946: (2.9, 8.0),
    50000: (1.5, 8.0),
    34925: (4.2, 35.0),
}
TIFF_OTHER_NS = (1.0, 27.0)
TIFF_OLD_JPEG, TIFF_JPEG = 6, 7
TIFF_JPEG_NS, TIFF_JPEG_BYTE_NS = {TIFF_OLD_JPEG: 18.0, TIFF_JPEG: 14.5}, 7.0
TIFF_JPEG_PIECE_NS = 1500.0  # on top, since each piece is a JPEG of its own
# A JPEG for each strip or tile: a photograph in tiles of 128 pixels has 3,000.
TIFF_JPEGS = 4096
# AVIF and HEIC (dav1d, libde265): 8 bits; more take as much again.
AVIF_NS, AVIF_ALPHA_NS, AVIF_BYTE_NS, AVIF_BYTES = 19.0, 3.0, 100.0, 13.0
# For each item, for example each tile of a grid: a phone's photograph has 50.
AVIF_PIECE_NS, HEIC_PIECE_NS = 20e3, 250e3


@dataclass(frozen=True, slots=True)
class Price:
    """What decoding takes on the machine where the factors were measured.

    `seconds` holds for any file that an encoder writes. `bound` holds for any file at all, unless
    the decoder has a fault. `memory` is in bytes, without the encoded image itself.
    """

    kind: str
    width: int
    height: int
    seconds: float
    bound: float
    memory: int

    @property
    def killable(self) -> bool:
        """Whether the image has to be decoded in a process, which can be killed."""
        return self.bound > THREAD_SECONDS or self.memory > THREAD_BYTES


def price(kind: str, data: bytes, rule: ResizeRule) -> Price:
    """The price of an image; `kind` is its format by `sniff`.

    Raises `UnreadableImage`, or another problem of the image, if its header cannot be read.
    """
    if kind == "JPEG":
        found = _jpeg(data, rule)
    else:
        header = headers.read(kind, data)
        if header is None:
            # Raises the decoder's own reason, if it has a better one. Even a decoder takes no
            # memory for an image without a size, and it reads only a bounded part
            # (contracts/images).
            open_header(data, sys.maxsize)
            raise UnreadableImage(f"the {kind} header cannot be read: it is cut off or broken")
        found = FORMULAS[kind](header, data, rule)
    # A copy of the file, for the process or the library that decodes it.
    return dataclasses.replace(found, memory=found.memory + len(data))


@functools.lru_cache(maxsize=64)
def honest(pixels: int, rule: ResizeRule) -> float:
    """Seconds for an honest progressive JPEG of so many pixels, in a square: the unit of prices."""
    side = math.isqrt(pixels)
    return 1e-9 * pixels * HONEST_NS[_fraction(side, side, rule)]


def check(price: Price, max_pixels: int, rule: ResizeRule) -> None:
    """Refuse an image that has too many pixels, or costs too much. Raises `TooManyPixels`."""
    size = f"{price.width}×{price.height}"
    pixels = price.width * price.height
    if pixels > max_pixels:
        raise TooManyPixels(
            f"the image has {size} = {pixels} pixels, at most {max_pixels} are accepted; "
            "scale it down"
        )
    unit = honest(max_pixels, rule)
    allowed = ALLOWED_SECONDS + 1e-9 * TARGET_NS * rule.width * rule.height
    if price.seconds > CEILING * unit + allowed:
        times = price.seconds / unit
        raise TooManyPixels(
            f"the {price.kind} of {size} pixels would take {times:.1f} times as long to decode as "
            f"a progressive JPEG of {max_pixels} pixels, at most {CEILING:g} times are accepted; "
            "scale it down, or save it as an ordinary JPEG"
        )
    room = BYTES_PER_PIXEL * max_pixels + ALLOWED_BYTES
    if price.memory > room:
        raise TooManyPixels(
            f"the {price.kind} of {size} pixels would take {price.memory >> 20} MiB to decode, at "
            f"most {room >> 20} are accepted; scale it down, or save it as an ordinary JPEG"
        )


def _price(
    kind: str, header: Header, rule: ResizeRule, times: tuple[float, float], bytes_per_pixel: float
) -> Price:
    """The price with the costs of every format: rows, columns and the resize.

    `times` are the nanoseconds for a file that an encoder writes, and for the worst file.
    """
    expected, worst = times
    target = rule.width * rule.height
    common = ROW_NS * header.height + COLUMN_NS * header.width + TARGET_NS * target
    common += TURN_NS * header.turned * header.pixels
    memory = (bytes_per_pixel + TURN_BYTES * header.turned) * header.pixels
    memory += EDGE_BYTES * (header.height + header.width)
    memory += TARGET_BYTES * target + TIFF_PIECE_BYTES * (header.pieces - 1)
    if not rule.antialias:
        # The array, and the two rows that each row of the output is made from.
        memory += ARRAY_BYTES * header.pixels + 6 * rule.height * header.width
    return Price(
        kind,
        header.width,
        header.height,
        1e-9 * (expected + common),
        1e-9 * (max(worst, expected) + common),
        int(memory),
    )


def _jpeg(data: bytes, rule: ResizeRule) -> Price:
    found = jpeg_scans.structure(data)
    if found.endless:
        raise UnreadableImage(
            f"the JPEG has more than {jpeg_scans.MAX_SEGMENTS} segments; save it anew"
        )
    if not found.samples:
        raise UnreadableImage("the JPEG has no frame header, which tells its size")
    header = Header(found.width, found.height, len(found.samples))
    pixels, fraction = header.pixels, _fraction(found.width, found.height, rule)
    nanoseconds = PIXEL_NS[fraction] * pixels + _coefficients(found) + JPEG_BYTE_NS * len(data)
    memory = PIXEL_BYTES[fraction] * pixels
    if found.buffered:
        memory += 2 * sum(found.samples.values())
    if not found.ended:  # it is decoded with two endings, which must give the same
        nanoseconds, memory = 2 * nanoseconds, memory + 4 * pixels
    return _price("JPEG", header, rule, (nanoseconds, 2 * nanoseconds), memory / max(1, pixels))


def _fraction(width: int, height: int, rule: ResizeRule) -> int:
    """8 for a JPEG that is decoded at 1/8 of its size, and so on; as `contracts.images` asks."""
    side = least_side(width, height, rule)
    if side is None:
        return 1
    return max(number for number in PIXEL_NS if number <= max(1, min(width, height) // side))


def _coefficients(found: Structure) -> float:
    """Nanoseconds for all scans over all coefficients."""
    if found.arithmetic:
        return ARITHMETIC_NS * found.scanned
    if not found.buffered:
        return 0.0
    return SCAN_NS * found.scanned + COEFFICIENT_NS * sum(found.samples.values())


def _png(header: Header, data: bytes, rule: ResizeRule) -> Price:
    row = header.channels * header.depth / 8 * header.pixels  # in bytes, of all rows
    see_through = header.transparent
    pixel = TRANSPARENT_NS if see_through else OPAQUE_NS
    pixel += INTERLACED_NS * header.interlaced
    if header.depth == 16:
        pixel += DEEP_NS + DEEP_KEY_NS * (see_through and header.channels == 3)
    rest = pixel * header.pixels
    return _price(
        "PNG",
        header,
        rule,
        (
            rest + PNG_ROW_NS * row + PNG_BYTE_NS * len(data),
            rest + PNG_WORST_ROW_NS * row + PNG_WORST_BYTE_NS * len(data),
        ),
        TRANSPARENT_BYTES if see_through else OPAQUE_BYTES,
    )


def _webp(header: Header, data: bytes, rule: ResizeRule) -> Price:
    pixel = WEBP_TRANSPARENT_NS if header.transparent else WEBP_NS
    nanoseconds = pixel * header.pixels + WEBP_ROW_NS * header.height + WEBP_BYTE_NS * len(data)
    return _price("WebP", header, rule, (nanoseconds, 2 * nanoseconds), WEBP_BYTES)


def _gif(header: Header, data: bytes, rule: ResizeRule) -> Price:
    pixel = GIF_TRANSPARENT_NS if header.transparent else GIF_NS
    nanoseconds = pixel * header.pixels + GIF_BYTE_NS * len(data)
    return _price("GIF", header, rule, (nanoseconds, 4 * nanoseconds), GIF_BYTES)


def _bmp(header: Header, data: bytes, rule: ResizeRule) -> Price:
    nanoseconds = BMP_NS * header.pixels + len(data)
    if header.coding in BMP_RUNS:
        nanoseconds += BMP_RUN_NS * (header.pixels + len(data))
    return _price("BMP", header, rule, (nanoseconds, 2 * nanoseconds), BMP_BYTES)


def _tiff(header: Header, data: bytes, rule: ResizeRule) -> Price:
    row = header.channels * header.depth / 8 * header.pixels
    colour = TIFF_COLOUR_NS.get(header.photometric, TIFF_NS)
    nanoseconds = (colour + TIFF_ALPHA_NS * header.transparent) * header.pixels
    if header.channels == 1 and header.depth > 8:
        nanoseconds += TIFF_DEEP_GREY_NS * header.pixels
    memory = TIFF_BYTES + header.channels * header.depth / 8
    memory += TIFF_ALPHA_BYTES * header.transparent
    if header.coding in TIFF_JPEG_NS:
        scanned, buffered = _jpegs_in(data)
        nanoseconds = TIFF_JPEG_NS[header.coding] * header.pixels + scanned
        nanoseconds += TIFF_JPEG_BYTE_NS * len(data) + TIFF_JPEG_PIECE_NS * header.pieces
        memory += buffered / max(1, header.pixels)
    else:
        by_row, by_byte = TIFF_CODING_NS.get(int(header.coding), TIFF_OTHER_NS)
        nanoseconds += by_row * row + by_byte * len(data)
    nanoseconds += TIFF_PIECE_NS * header.pieces
    worst = 2 * nanoseconds + PNG_WORST_BYTE_NS * len(data)
    return _price("TIFF", header, rule, (nanoseconds, worst), memory)


def _jpegs_in(data: bytes) -> tuple[float, float]:
    """Nanoseconds and bytes for the coefficients of the JPEGs in the pieces of a TIFF.

    Pieces may be the same bytes again and again. Raises `UnreadableImage` if there are too many.
    """
    nanoseconds = memory = 0.0
    for begin, size, times in headers.tiff_pieces(data, TIFF_JPEGS):
        found = jpeg_scans.structure(data[begin : begin + size])
        if found.endless:
            raise UnreadableImage(
                f"a JPEG in the TIFF has more than {jpeg_scans.MAX_SEGMENTS} segments"
            )
        nanoseconds += times * _coefficients(found)
        if found.buffered:
            memory = max(memory, 2.0 * sum(found.samples.values()))
    return nanoseconds, memory


def _avif(header: Header, data: bytes, rule: ResizeRule) -> Price:
    return _boxed("AVIF", AVIF_PIECE_NS, header, data, rule)


def _heif(header: Header, data: bytes, rule: ResizeRule) -> Price:
    return _boxed("HEIC", HEIC_PIECE_NS, header, data, rule)


def _boxed(kind: str, piece: float, header: Header, data: bytes, rule: ResizeRule) -> Price:
    times = 2 if header.depth > 8 else 1
    nanoseconds = (AVIF_NS + AVIF_ALPHA_NS * header.transparent) * header.pixels
    nanoseconds = times * (nanoseconds + AVIF_BYTE_NS * len(data)) + piece * header.pieces
    # The pixels may be more than the boxes around them say, and are then scaled down.
    return _price(kind, header, rule, (nanoseconds, math.inf), times * AVIF_BYTES)


FORMULAS: dict[str, Callable[[Header, bytes, ResizeRule], Price]] = {
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
    "BMP": _bmp,
    "TIFF": _tiff,
    "AVIF": _avif,
    "HEIF": _heif,
}
