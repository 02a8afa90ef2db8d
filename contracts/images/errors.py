"""What can be wrong with an encoded image: one exception class for each kind.

Each message says what was wrong and what would be right, in words that a person who only knows the
file understands.
"""


class ImageError(ValueError):
    """An image that is not turned into pixels, and why."""


class UnsupportedTypeError(ImageError):
    """The bytes are those of no image format that is read."""


class UnreadableImageError(ImageError):
    """The bytes begin like an image, but cannot be decoded, or not without a guess."""


class TooManyPixelsError(ImageError):
    """The image, or what would have to be decoded for it, is over the limit. Nothing is decoded."""
