"""Images to send: real images from a folder, or synthetic images that resemble photographs.

In: a folder or none, and how many. Out: encoded images. Noise would compress badly and a flat
colour too well. The synthetic images have the spectrum of photographs (power falls with the square
of the frequency), the size of ImageNet's images, and about as many bytes as these.
"""

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from contracts.counting import counted
from contracts.images.decoding import read
from contracts.images.errors import ImageError
from contracts.images.folders import find_images
from contracts.images.formats import SUFFIXES
from contracts.resizing import ResizeRule

WIDTH, HEIGHT = 500, 375  # pixels, as most of ImageNet's images
QUALITY = 92


class ImagesError(ValueError):
    """There are no images where some were expected; the message names the folder."""


@dataclasses.dataclass(frozen=True)
class SampleImage:
    """One encoded image."""

    name: str
    data: bytes = dataclasses.field(repr=False)

    def pixels(self, height: int, width: int) -> npt.NDArray[np.uint8]:
        """The image, resized bilinearly: uint8[height, width, 3]. Raises `ImageError`."""
        return read(self.data, ResizeRule(height, width))


def load(folder: Path | None, count: int, seed: int = 0) -> list[SampleImage]:
    """The first `count` images of a folder, in any subfolders, or as many made from `seed`.

    Raises ImagesError if there is none, or one that cannot be read.
    """
    if folder is None:
        return [make(seed + number) for number in range(count)]
    if not folder.is_dir():
        raise ImagesError(f"{folder}: no such folder of images")
    files, _ = find_images(folder)
    if not files:
        raise ImagesError(f"{folder}: holds no images ({', '.join(sorted(SUFFIXES))})")
    found = []
    for path in files[:count]:
        try:
            found.append(SampleImage(path.name, path.read_bytes()))
            found[-1].pixels(8, 8)
        except OSError as error:
            raise ImagesError(f"{path} cannot be read: {error.strerror}") from error
        except ImageError as error:
            raise ImagesError(f"{folder}: {path.name} is not an image: {error}") from error
    return found


def make(seed: int) -> SampleImage:
    """A photo-like JPEG, another for each seed."""
    random = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    frequencies[0, 0] = 1.0
    phases = np.exp(2j * np.pi * random.random((3, *frequencies.shape)))
    grey, *colours = np.fft.irfft2(phases / frequencies, s=(HEIGHT, WIDTH))
    # Colours vary less than brightness, as they do in nature.
    channels = np.stack([grey + 0.4 * colours[0], grey, grey + 0.4 * colours[1]], axis=-1)
    centre, contrast = random.uniform(90, 160), random.uniform(35, 60)
    pixels = centre + contrast * channels / grey.std()
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
    return SampleImage(f"made-{seed}.jpg", file.getvalue())


def digest(sample_images: Sequence[SampleImage]) -> str:
    """SHA-256 of all images in their order; it is equal if two results used the same images."""
    found = hashlib.sha256()
    for image in sample_images:
        found.update(hashlib.sha256(image.data).digest())
    return found.hexdigest()


def describe(sample_images: list[SampleImage], folder: Path | None) -> str:
    """A description of the images, for the conditions of a result."""
    kilobytes = np.mean([len(picture.data) for picture in sample_images]) / 1000
    where = "made, photo-like, 500×375" if folder is None else f"files of {folder.name}/"
    return f"{counted(len(sample_images), 'image')} ({where}), {kilobytes:.0f} kB on average"
