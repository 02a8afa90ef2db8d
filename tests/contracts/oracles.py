"""What timm, torchvision and TensorFlow make of an image, written out for the tests.

In: an RGB image of Pillow. Out: the pixels that each library gives its model, before it normalises
them. Nothing of `contracts` is used. Sources: timm 1.0.31, `data/transforms_factory.py`;
torchvision 0.28, `transforms/functional.py`; transformers 5.24, `image_transforms.py`;
TensorFlow's `image_ops_impl.py` and `scale_and_translate_op.cc`. Each resizes everything and then
cuts.
"""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

Levels = npt.NDArray[np.float64]
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def torchvision_resize(image: Image.Image, size: int, interpolation: str) -> Image.Image:
    """`Resize(size)`: the short side becomes `size`, of the long one the fraction is cut off."""
    width, height = image.size
    short, long = sorted(image.size)
    other = int(size * long / short)
    to = (size, other) if width <= height else (other, size)
    return image if to == image.size else image.resize(to, FILTERS[interpolation])


def torchvision_center_crop(image: Image.Image, size: int) -> Image.Image:
    """`CenterCrop(size)`, of an image that is no smaller."""
    left = round((image.width - size) / 2.0)
    top = round((image.height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))


def timm_eval(image: Image.Image, size: int, crop_pct: float, interpolation: str) -> Levels:
    """timm's transform for evaluation with `crop_mode` center; [size, size, 3] levels."""
    resized = torchvision_resize(image, math.floor(size / crop_pct), interpolation)
    return np.asarray(torchvision_center_crop(resized, size), np.float64)


def transformers_eval(image: Image.Image, size: int, scale: int, interpolation: str) -> Levels:
    """transformers' image processors with `shortest_edge` and a centre crop, which both cut off."""
    resized = torchvision_resize(image, scale, interpolation)
    left, top = (resized.width - size) // 2, (resized.height - size) // 2
    return np.asarray(resized.crop((left, top, left + size, top + size)), np.float64)


def tensorflow_resize(
    pixels: Levels, height: int, width: int, interpolation: str, *, antialias: bool
) -> Levels:
    """`tf.image.resize` with half-pixel centres: weights of each axis, normalised at the edges."""
    down = _weights(pixels.shape[0], height, interpolation, antialias=antialias)
    across = _weights(pixels.shape[1], width, interpolation, antialias=antialias)
    levels: Levels = np.einsum("yY,YXc,xX->yxc", down, pixels, across, optimize=True)
    return levels


def official_eval(image: Image.Image, size: int, *, antialias: bool) -> Levels:
    """Google's evaluation of Mixer and ViT: straight to the square."""
    pixels = np.asarray(image, np.float64)
    return tensorflow_resize(pixels, size, size, "bilinear", antialias=antialias)


def resmall_crop(
    image: Image.Image, size: int, scale: int, interpolation: str, *, antialias: bool
) -> Levels:
    """`resize_small(scale)` and `central_crop(size)` of big_vision: the long side is rounded."""
    pixels = np.asarray(image, np.float64)
    height, width = pixels.shape[:2]
    ratio = scale / min(height, width)
    to_height, to_width = int(np.rint(height * ratio)), int(np.rint(width * ratio))
    whole = tensorflow_resize(pixels, to_height, to_width, interpolation, antialias=antialias)
    top, left = (to_height - size) // 2, (to_width - size) // 2
    return whole[top : top + size, left : left + size]


def _weights(size: int, to: int, interpolation: str, *, antialias: bool) -> Levels:
    """[to, size]: how much of each source pixel goes into each pixel of the result."""
    scale = size / to
    spread = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(to) + 0.5) * scale - 0.5
    distance = np.abs(centres[:, None] - np.arange(size)[None]) / spread
    if interpolation == "bilinear":
        weights = np.maximum(0.0, 1.0 - distance)
    else:  # Keys' cubic, a = −1/2
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    normalised: Levels = weights / weights.sum(axis=1, keepdims=True)
    return normalised
