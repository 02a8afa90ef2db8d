"""From a decoder's output to RGB: the rules of conversion for each mode.

In: a decoded Pillow image of any mode. Out: one of mode RGB and the same size. docs/images.md has
the rules in a table.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from contracts.images.errors import UnreadableImageError

WHITE = (255, 255, 255)
# Rows of samples over 8 bits are reduced in parts of this many pixels, to need no second image.
PART = 2**20

Mask = npt.NDArray[np.bool_]


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB: transparency is laid over white, 16-bit samples keep their upper 8
    bits, CMYK is converted by the plain formula, grey and palettes get the colours that they show.
    Raises `UnreadableImageError` for 32 bits."""
    if image.mode.startswith("I;16"):
        image = from_deep_grey(image, 16)
    if image.mode in {"I", "F"}:
        raise UnreadableImageError(
            "the image has 32 bits per channel, whose range is not defined; save it with 8 or 16"
        )
    if image.has_transparency_data:
        if image.mode == "La":
            image = image.convert("LA")
        if image.mode != "RGBA":  # a copy takes 4 bytes per pixel
            image = image.convert("RGBA")
        white = Image.new("RGB", image.size, WHITE)
        white.paste(image, mask=image.getchannel("A"))
        return white
    # convert() copies an image that is RGB already.
    return image if image.mode == "RGB" else image.convert("RGB")


def from_deep_grey(
    image: Image.Image, bits: int, *, inverted: bool = False, key: int | None = None
) -> Image.Image:
    """Grey of 9 to 16 bits as mode L, of which the upper 8 bits are kept.

    `inverted`: zero is white. `key`: the transparent sample, which becomes white.
    """
    deep = np.asarray(image)
    shallow = (deep >> (bits - 8)).astype(np.uint8)
    if inverted:
        np.subtract(255, shallow, out=shallow)
    if key is not None:
        shallow[deep == key] = 255
    return Image.fromarray(shallow)


def key_to_white(high: Image.Image, low: Image.Image, key: tuple[int, ...]) -> None:
    """Make white, in `high`, each pixel of 16 bits per channel that is the key colour.

    `high` and `low` are RGB and have the upper and the lower 8 bits; `high` is changed.
    """
    rows = max(1, PART // high.width)
    for top in range(0, high.height, rows):
        box = (0, top, high.width, min(top + rows, high.height))
        upper, lower = np.asarray(high.crop(box)), np.asarray(low.crop(box))
        matches = (upper == np.right_shift(key, 8)) & (lower == np.bitwise_and(key, 255))
        is_key: Mask = matches.all(axis=-1)
        if is_key.any():
            high.paste(WHITE, box, Image.fromarray(is_key.astype(np.uint8) * 255))


def without_empty_alpha(image: Image.Image) -> Image.Image:
    """The image as RGB if it is RGBA and every alpha is zero; any other image as it is.

    Some programs declare a channel of alpha and leave it empty: such an image would be invisible.
    """
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    return image


def beyond_palette(image: Image.Image, colours: int) -> Mask | None:
    """Mask bool[H, W] of the pixels whose palette index has no colour; None if there are none."""
    if image.mode != "P":
        return None
    beyond: Mask = np.asarray(image) >= colours
    return beyond if beyond.any() else None
