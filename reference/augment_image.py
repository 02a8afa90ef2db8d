"""Augmentation of one image, on the host, before the image becomes part of a batch.

In: an RGB image and a random generator that belongs to this image and epoch. Out: an RGB image at
the image size. Random resized crop as in Szegedy et al. 2014 (arXiv 1409.4842, section 6);
RandAugment as in Cubuk et al. 2019 (arXiv 1909.13719) with the 16 operations and the magnitudes of
big_vision (pp/archive/autoaugment.py at 0127fb6), for which 10 is full strength and more is
extrapolated. Lengths in pixels are meant for 224, and scaled by the side of other images.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GREY = (128, 128, 128)  # the colour of areas outside of the image
BILINEAR = Image.Resampling.BILINEAR
NATIVE = 224  # pixels per side that the lengths below are meant for


def crop_box(
    width: int, height: int, min_area: float, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """A random box (left, top, right, bottom), or the whole image if no box fits.

    The box has `min_area` to all of the image's area, and an aspect of 3:4 to 4:3.
    """
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


def squashed_crop(
    image: Image.Image, resize: int, image_size: int, random: np.random.Generator
) -> Image.Image:
    """Resize to a square of `resize` pixels per side and cut a random smaller square out of it."""
    image = image.resize((resize, resize), BILINEAR)
    left, top = (int(random.integers(resize - image_size + 1)) for _ in range(2))
    return image.crop((left, top, left + image_size, top + image_size))


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, BILINEAR, fillcolor=GREY)


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> "Operation":
    return lambda image, m, _random: kind(image).enhance(1.8 * m + 0.1)


def _signed(value: float, random: np.random.Generator) -> float:
    return value if random.random() < 0.5 else -value


def _pixels(length: float, side: int) -> float:
    return length * side / NATIVE


def _solarize_add(image: Image.Image, m: float) -> Image.Image:
    return image.point([min(v + int(110 * m), 255) if v < 128 else v for v in range(256)] * 3)


def _cutout(image: Image.Image, m: float, random: np.random.Generator) -> Image.Image:
    """Draw a grey square around a random point; a part outside of the image is dropped."""
    half = round(_pixels(int(40 * m), max(image.size)))
    x, y = int(random.integers(image.width)), int(random.integers(image.height))
    image = image.copy()
    if half:
        image.paste(GREY, (x - half, y - half, x + half, y + half))
    return image


# (image, magnitude / 10, generator) → image
Operation = Callable[[Image.Image, float, np.random.Generator], Image.Image]
OPERATIONS: dict[str, Operation] = {
    "autocontrast": lambda image, _m, _random: ImageOps.autocontrast(image),
    "equalize": lambda image, _m, _random: ImageOps.equalize(image),
    "invert": lambda image, _m, _random: ImageOps.invert(image),
    "rotate": lambda image, m, random: image.rotate(
        _signed(30 * m, random), BILINEAR, fillcolor=GREY
    ),
    # This keeps 4 bits at full strength, and more bits above full strength. So it becomes weaker,
    # not stronger, as in the published code.
    "posterize": lambda image, m, _random: image.point(
        [v & ~((1 << 8 - min(int(4 * m), 8)) - 1) for v in range(256)] * 3
    ),
    "solarize": lambda image, m, _random: ImageOps.solarize(image, min(int(256 * m), 256)),
    "solarize_add": lambda image, m, _random: _solarize_add(image, m),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "cutout": _cutout,
    "shear_x": lambda image, m, random: _affine(image, 1, _signed(0.3 * m, random), 0, 0, 1, 0),
    "shear_y": lambda image, m, random: _affine(image, 1, 0, 0, _signed(0.3 * m, random), 1, 0),
    "translate_x": lambda image, m, random: _affine(
        image, 1, 0, _signed(_pixels(100 * m, image.width), random), 0, 1, 0
    ),
    "translate_y": lambda image, m, random: _affine(
        image, 1, 0, 0, 0, 1, _signed(_pixels(100 * m, image.height), random)
    ),
}


def randaugment(
    image: Image.Image, layers: int, magnitude: float, random: np.random.Generator
) -> Image.Image:
    """Put an image through `layers` random operations, all of strength `magnitude` (10 is full)."""
    names = list(OPERATIONS)
    for _ in range(layers):
        name = names[random.integers(len(names))]
        image = OPERATIONS[name](image, magnitude / 10, random)
    return image
