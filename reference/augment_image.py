"""Augmentation of one image, on the host, before it comes into a batch.

In: an RGB image and a random generator that belongs to this image and epoch. Out: an RGB
image at the image size. Random resized crop as in Szegedy et al. 2014 (arXiv 1409.4842, section
6); RandAugment as in Cubuk et al. 2019 (arXiv 1909.13719) with its 14 operations.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GREY = (128, 128, 128)  # what comes in from outside of the image
BILINEAR = Image.Resampling.BILINEAR


def crop_box(
    width: int, height: int, min_area: float, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """A box (left, top, right, bottom): `min_area` to all of the area, 3:4 to 4:3; or the whole."""
    for _ in range(10):
        area = width * height * random.uniform(min_area, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(random.integers(width - w + 1))
            top = int(random.integers(height - h + 1))
            return left, top, left + w, top + h
    return 0, 0, width, height


def random_resized_crop(
    image: Image.Image, image_size: int, min_area: float, random: np.random.Generator
) -> Image.Image:
    """Cut out a random box and resize it to a square of `image_size` pixels per side."""
    box = crop_box(*image.size, min_area, random)
    return image.resize((image_size, image_size), BILINEAR, box)


def _affine(
    image: Image.Image, matrix: tuple[float, float, float, float, float, float]
) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, BILINEAR, fillcolor=GREY)


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> "Operation":
    return lambda image, m, sign: kind(image).enhance(1 + sign * 0.9 * m)


# (image, strength 0 to 1, +1 or −1) → image
Operation = Callable[[Image.Image, float, int], Image.Image]
OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, _m, _sign: image,
    "autocontrast": lambda image, _m, _sign: ImageOps.autocontrast(image),
    "equalize": lambda image, _m, _sign: ImageOps.equalize(image),
    "rotate": lambda image, m, sign: image.rotate(sign * 30 * m, BILINEAR, fillcolor=GREY),
    "solarize": lambda image, m, _sign: ImageOps.solarize(image, round(256 * (1 - m))),
    "posterize": lambda image, m, _sign: ImageOps.posterize(image, 8 - round(4 * m)),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": lambda image, m, sign: _affine(image, (1, sign * 0.3 * m, 0, 0, 1, 0)),
    "shear_y": lambda image, m, sign: _affine(image, (1, 0, 0, sign * 0.3 * m, 1, 0)),
    "translate_x": lambda image, m, sign: _affine(
        image, (1, 0, sign * 0.45 * m * image.width, 0, 1, 0)
    ),
    "translate_y": lambda image, m, sign: _affine(
        image, (1, 0, 0, 0, 1, sign * 0.45 * m * image.height)
    ),
}


def randaugment(
    image: Image.Image, layers: int, magnitude: float, random: np.random.Generator
) -> Image.Image:
    """Put an image through `layers` random operations of strength `magnitude`, 0 to 10."""
    names = list(OPERATIONS)
    for _ in range(layers):
        name = names[random.integers(len(names))]
        sign = 1 if random.random() < 0.5 else -1
        image = OPERATIONS[name](image, magnitude / 10, sign)
    return image
