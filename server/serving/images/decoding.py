"""The project's way from an image to pixels, with its errors as the gateway's problems.

In: the bytes of one image and the model's `ResizeRule`. Out: contiguous uint8[H, W, 3], RGB.
`contracts.images` does all of the work, for the gateway as for training and calibration.
"""

from contracts.images import decoding, errors, formats
from contracts.images.encoded import EncodedImage
from contracts.resizing import Pixels, ResizeRule
from server.problems import Problem, TooManyPixels, UnreadableImage, UnsupportedType

PROBLEMS: dict[type[errors.ImageError], type[Problem]] = {
    errors.UnsupportedTypeError: UnsupportedType,
    errors.UnreadableImageError: UnreadableImage,
    errors.TooManyPixelsError: TooManyPixels,
}


def begins_like_image(data: bytes) -> bool:
    """Whether the first bytes are those of a format that is read."""
    try:
        formats.sniff(data)
    except errors.UnsupportedTypeError:
        return False
    return True


def kind_of(data: bytes) -> str:
    """Pillow's name of the format, told by the bytes. Raises `UnsupportedType`."""
    try:
        return formats.sniff(data)
    except errors.ImageError as error:
        raise _problem(error) from error


def is_quick(data: bytes) -> bool:
    """Whether the time for reading and decoding is bounded by the number of bytes and pixels.

    Raises `UnsupportedType`.
    """
    try:
        return decoding.is_quick(data)
    except errors.ImageError as error:
        raise _problem(error) from error


def open_header(data: bytes, max_pixels: int) -> EncodedImage:
    """The image with its header read and nothing decoded.

    Raises `UnsupportedType`, `UnreadableImage`, or `TooManyPixels` beyond `max_pixels`.
    """
    try:
        return decoding.open_header(data, max_pixels)
    except errors.ImageError as error:
        raise _problem(error) from error


def decode(image: EncodedImage, rule: ResizeRule) -> Pixels:
    """The model's input for an opened image: contiguous uint8[H, W, 3], RGB.

    The image is used up: its memory is freed early, although the caller still has the object.
    Raises `UnreadableImage` if it is truncated or corrupt.
    """
    try:
        return decoding.model_input(image, rule)
    except errors.ImageError as error:
        raise _problem(error) from error


def _problem(error: errors.ImageError) -> Problem:
    return PROBLEMS[type(error)](str(error))
