"""Photographs made for tests: smooth colours with grain; they compress as photographs do."""

import io

import numpy as np
from PIL import Image


def photo(seed: int, width: int = 500, height: int = 375, kind: str = "JPEG") -> bytes:
    """An encoded image of smooth colours with grain, other for each seed."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = random.uniform(1, 6, (3, 2)), random.uniform(0, 6, 3)
    colours = [np.sin(a * x + b * y + c) for (a, b), c in zip(*waves, strict=True)]
    pixels = 127.5 + 100 * np.stack(colours, axis=-1) + random.normal(0, 5, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, kind)
    return file.getvalue()
