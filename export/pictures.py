"""Images from a folder, made into a model's input by the model's own rule.

In: a folder and a `Preprocessing`. Out: uint8 [H, W, 3] arrays, RGB, as a gateway would send them.
"""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from PIL import Image, ImageOps

from export.preprocessing import Preprocessing

Pixels = npt.NDArray[np.uint8]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def find_images(folder: Path) -> list[Path]:
    """Every image under a folder, by its name's ending, in a stable order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)


def read_image(path: Path, rule: Preprocessing, image_size: int) -> Pixels | None:
    """uint8 [image_size, image_size, 3], or nothing where the file is no image."""
    try:
        with warnings.catch_warnings(), Image.open(path) as opened:
            warnings.simplefilter("ignore")  # Pillow's hints on odd metadata
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    resized_size = round(image_size / rule.crop_fraction)
    width, height = resized_size, resized_size
    if rule.resize == "shortest":
        scale = resized_size / min(image.size)
        width, height = (max(resized_size, round(side * scale)) for side in image.size)
    pixels = _resize(image, width, height, rule)
    top, left = (height - image_size) // 2, (width - image_size) // 2
    return pixels[top : top + image_size, left : left + image_size]


def _resize(image: Image.Image, width: int, height: int, rule: Preprocessing) -> Pixels:
    if rule.antialias:
        return np.asarray(image.resize((width, height), _PILLOW[rule.interpolation]))
    # Four or sixteen neighbours at half-pixel centres, as TensorFlow's tf.image.resize does.
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    mode = rule.interpolation
    resized = F.interpolate(tensor, (height, width), mode=mode, align_corners=False)
    pixels: Pixels = resized[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    return pixels
