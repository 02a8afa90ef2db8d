"""An image of each format that is read, with its header read and nothing decoded.

In: the bytes of a file of a known format. Out: an `EncodedImage`, which knows its size and its
orientation, decodes itself once, and then gives its colours as RGB. Each class says which parts of
its format it hides from Pillow or changes for Pillow, and why.
"""

import io
import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from PIL import AvifImagePlugin, Image, ImageChops, TiffImagePlugin
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from contracts.images import bmff, colours, exif, gif, jpeg, png, tiff, webp
from contracts.images.errors import UnreadableImageError
from contracts.images.limits import check_runs, check_size, check_tiles
from contracts.resizing import Box

# The limit is checked here, on the header; Pillow's own limit is only a warning, at a size that
# Pillow chooses.
Image.MAX_IMAGE_PIXELS = None
# Pillow's own reader of uncompressed TIFF decodes as many strips as the file lists, even if all
# cover the same pixels: a megabyte of strips takes seconds, and each byte of the file takes 200
# bytes of memory. libtiff decodes each strip or tile of the image once.
TiffImagePlugin.READ_LIBTIFF = True
# The caller provides the threads: the decoder of AVIF starts none of its own.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
# Bytes to append to a JPEG without an end marker. Complete pixels do not depend on them.
FILLINGS = (bytes(64), b"\xa5\x5a" * 32)
# The mode that Pillow gives a JPEG, by the number of its components.
JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
# So many zeros are no pixels: the file was never written to its end.
UNWRITTEN = 1024


class EncodedImage:
    """An image with its header read and nothing decoded. Decoding uses it up."""

    kind: ClassVar[str]
    image: Image.Image  # of a JPEG once it is decoded

    def __init__(
        self, size: tuple[int, int], max_pixels: int, orientation: int = exif.UPRIGHT
    ) -> None:
        """Raises `UnreadableImageError` or `TooManyPixelsError`."""
        self.width, self.height = size  # as it is stored, before any turn
        self.max_pixels = max_pixels
        self.orientation = orientation
        check_size(size, max_pixels)

    def check_decoded(self) -> None:
        """Refuse an image that turned out larger than its header said. Raises `ImageError`."""
        check_size(self.image.size, self.max_pixels)

    def load(self, at_least: int | None) -> Box | None:  # noqa: ARG002 - JPEG takes it
        """Decode. With `at_least`, a fraction of the size is enough if both sides keep that many
        pixels; the part of the result that the image covers is then returned."""
        self.image.load()
        return None

    def rgb(self) -> Image.Image:
        """The decoded image in mode RGB, as it is stored."""
        return colours.to_rgb(self.image)


class Jpeg(EncodedImage):
    """JPEG, decoded at 1/2, 1/4 or 1/8 of its size where that is enough."""

    kind = "JPEG"

    def __init__(self, data: bytes, max_pixels: int) -> None:
        self.layout = jpeg.read_layout(data)
        super().__init__(self.layout.size, max_pixels, self.layout.orientation)

    def load(self, at_least: int | None) -> Box | None:
        layout = self.layout
        scale = _scale(layout.size, at_least)
        if layout.ended:
            self.image = _decoded(layout, layout.data, scale)
        else:
            if not jpeg.is_complete(layout):
                raise UnreadableImageError(
                    "the JPEG image is truncated: some of its scans are missing"
                )
            data = layout.data
            if len(data) - len(data.rstrip(b"\0")) > UNWRITTEN:
                data = data.rstrip(b"\0")
            data = data.rstrip(b"\xff")
            first, second = (_decoded(layout, data + end + jpeg.END, scale) for end in FILLINGS)
            if ImageChops.difference(first, second).getbbox() is not None:
                raise UnreadableImageError(
                    "the JPEG image is truncated: pixels are missing at its end"
                )
            self.image = first
        return (0.0, 0.0, self.width / scale, self.height / scale) if scale > 1 else None


class Png(EncodedImage):
    """PNG, with all bits of a transparent key colour, at every depth."""

    kind = "PNG"

    def __init__(self, data: bytes, max_pixels: int) -> None:
        self.layout = png.read_layout(data)
        self.image = PngImageFile(io.BytesIO(self.layout.data))
        super().__init__(self.image.size, max_pixels, self.layout.orientation)

    def rgb(self) -> Image.Image:
        image, layout = self.image, self.layout
        if layout.colour == png.INDEXED:
            return self._from_palette()
        if layout.key is None:
            return colours.to_rgb(image)
        if layout.colour == png.GREY:
            return self._from_grey(layout.key[0])
        if layout.bits == 16:
            low = PngImageFile(io.BytesIO(layout.data))
            # The samples are big-endian: read as little-endian, they give their lower bits.
            low.tile = [low.tile[0]._replace(args="RGB;16L")]
            low.load()
            colours.key_to_white(image, low, layout.key)
            return image
        image.info["transparency"] = layout.key
        return colours.to_rgb(image)

    def _from_grey(self, key: int) -> Image.Image:
        bits = self.layout.bits
        if bits == 16:
            return colours.from_deep_grey(self.image, 16, key=key).convert("RGB")
        grey = self.image.convert("L")
        shown = key * 255 // ((1 << bits) - 1)
        table = [255 if value == shown else value for value in range(256)]
        return grey.point(table).convert("RGB")

    def _from_palette(self) -> Image.Image:
        beyond = colours.beyond_palette(self.image, self.layout.palette)
        rgb = colours.to_rgb(self.image)
        if beyond is not None:  # black and opaque, as libpng has it
            rgb.paste((0, 0, 0), mask=Image.fromarray(beyond.astype(np.uint8) * 255))
        return rgb


class WebP(EncodedImage):
    """WebP, of which the first frame is read."""

    kind = "WEBP"

    def __init__(self, data: bytes, max_pixels: int) -> None:
        layout = webp.read_layout(data)
        check_size(layout.size, max_pixels)  # libwebp takes memory for all pixels at once
        self.image = WebPImageFile(io.BytesIO(layout.data))
        super().__init__(self.image.size, max_pixels, layout.orientation)

    def load(self, at_least: int | None) -> Box | None:
        box = super().load(at_least)
        # libwebp's two canvases, 8 bytes per pixel, would stay as long as the caller's image.
        vars(self.image).pop("_decoder", None)
        return box


class Gif(EncodedImage):
    """GIF. Areas that its first frame leaves empty are transparent, as browsers show them."""

    kind = "GIF"

    def __init__(self, data: bytes, max_pixels: int) -> None:
        image = GifImageFile(io.BytesIO(gif.first_frame(data)))
        self.image = image
        super().__init__(image.size, max_pixels)
        self.extents = image.tile[0].extents

    def rgb(self) -> Image.Image:
        beyond = None
        if self.image.palette is not None:
            beyond = colours.beyond_palette(self.image, len(self.image.palette.palette) // 3)
        rgb = colours.to_rgb(self.image)
        if beyond is not None:  # transparent
            rgb.paste(colours.WHITE, mask=Image.fromarray(beyond.astype(np.uint8) * 255))
        if self.extents is None or self.extents == (0, 0, *rgb.size):
            return rgb
        white = Image.new("RGB", rgb.size, colours.WHITE)
        white.paste(rgb.crop(self.extents), self.extents[:2])
        return white


class Bmp(EncodedImage):
    """BMP, whose alpha counts unless it is zero everywhere."""

    kind = "BMP"

    def __init__(self, data: bytes, max_pixels: int) -> None:
        image = BmpImageFile(io.BytesIO(data))
        self.image = image
        super().__init__(image.size, max_pixels)
        check_runs(image, len(data))

    def rgb(self) -> Image.Image:
        return colours.to_rgb(colours.without_empty_alpha(self.image))


class Tiff(EncodedImage):
    """TIFF, whose first page is read. Pillow itself turns it, by the tag for the orientation."""

    kind = "TIFF"

    def __init__(self, data: bytes, max_pixels: int) -> None:
        self.layout = tiff.read_layout(data)
        tags = self.layout.tags
        try:
            image = TiffImageFile(io.BytesIO(self.layout.data))
        except SyntaxError as error:
            raise UnreadableImageError(tiff.unread(tags, str(error))) from error
        self.image = image
        super().__init__(image.size, max_pixels)
        width, height = (tags.get(tag, (0,))[0] for tag in (tiff.TILE_WIDTH, tiff.TILE_LENGTH))
        if width > 0 and height > 0:  # else strips, which end where the image ends
            size = tags[tiff.WIDTH][0], tags[tiff.LENGTH][0]
            check_tiles(size, (width, height), max_pixels)
        self.colour_map = image.tag_v2.get(tiff.COLOUR_MAP, ())

    def rgb(self) -> Image.Image:
        image = self.image
        if image.mode.startswith("I;16"):
            bits, inverted = self.layout.bits, self.layout.inverted
            return colours.from_deep_grey(image, bits, inverted=inverted).convert("RGB")
        if image.mode == "P":
            _mend_palette(image, self.colour_map)
        if tiff.EXTRA_SAMPLES not in self.layout.tags:
            return colours.to_rgb(colours.without_empty_alpha(image))
        return colours.to_rgb(image)


class Avif(EncodedImage):
    """AVIF, turned and mirrored by its own properties, which Pillow reports as an orientation."""

    kind = "AVIF"

    def __init__(self, data: bytes, max_pixels: int) -> None:
        image = AvifImageFile(io.BytesIO(bmff.without_metadata(data)))
        self.image = image
        super().__init__(image.size, max_pixels, exif.orientation(image.info.get("exif", b"")))

    def load(self, at_least: int | None) -> Box | None:
        box = super().load(at_least)
        vars(self.image).pop("_decoder", None)  # the decoder keeps the file and its planes
        return box


class Heif(EncodedImage):
    """HEIC, where the extra package is installed; turned by its own properties."""

    kind = "HEIF"

    def __init__(self, data: bytes, max_pixels: int) -> None:
        import pillow_heif  # noqa: PLC0415 - an extra

        # Read nothing but the image itself, and decode in the calling thread.
        pillow_heif.options.DECODE_THREADS = 1
        pillow_heif.options.THUMBNAILS = False
        pillow_heif.options.DEPTH_IMAGES = False
        pillow_heif.options.AUX_IMAGES = False
        image = pillow_heif.HeifImageFile(io.BytesIO(bmff.without_metadata(data)))
        self.image = image
        super().__init__(image.size, max_pixels)


FORMATS: dict[str, Callable[[bytes, int], EncodedImage]] = {
    "JPEG": Jpeg,
    "PNG": Png,
    "WEBP": WebP,
    "GIF": Gif,
    "BMP": Bmp,
    "TIFF": Tiff,
    "AVIF": Avif,
    "HEIF": Heif,
}


def _scale(size: tuple[int, int], at_least: int | None) -> int:
    """The number by which libjpeg may divide both sides so that each keeps `at_least` pixels."""
    if at_least is None:
        return 1
    most = min(size) // at_least
    return next((scale for scale in (8, 4, 2) if most >= scale), 1)


def _decoded(layout: jpeg.Layout, data: bytes, scale: int) -> Image.Image:
    """Decode a JPEG. Its last column and row can then lie half beyond the edge of the image.

    Only libjpeg is used: Pillow's reader of headers, in Python, takes longer than decoding a small
    image, and all that the reader would return is known already.
    """
    mode = JPEG_MODES[layout.components]
    width, height = (math.ceil(side / scale) for side in layout.size)
    image = Image.new(mode, (width, height), None)
    # Adobe's programs, which write nearly all of them, store CMYK inverted.
    image.frombytes(data, "jpeg", "CMYK;I" if mode == "CMYK" else mode, "", scale, 0)
    return image


def _mend_palette(image: Image.Image, colour_map: tuple[int, ...]) -> None:
    """Read a palette of 8-bit colours as such, as libtiff does.

    Some programs write 8-bit colours where TIFF 6.0 has 16 bits.
    """
    if colour_map and 0 < max(colour_map) < 256:
        third = len(colour_map) // 3
        planes = (colour_map[:third], colour_map[third : 2 * third], colour_map[2 * third :])
        image.putpalette([value for colour in zip(*planes, strict=True) for value in colour])
