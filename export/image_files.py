"""Images from a folder, prepared as a model's input by the model's own rule.

In: a folder and a `Preprocessing`. Out: uint8 [H, W, 3] arrays, RGB, as the gateway sends them.
"""

from pathlib import Path

from contracts.images import folders
from contracts.images.decoding import read_file
from contracts.images.errors import ImageError
from contracts.resizing import Pixels
from export.preprocessing import Preprocessing
from export.progress import note


def find_images(folder: Path) -> list[Path]:
    """Every file under a folder whose suffix is that of an image, in a stable order."""
    found, left_out = folders.find_images(folder)
    if str(left_out):
        note(f"{folder}: left out {left_out}")
    return found


def read_image(path: Path, rule: Preprocessing, image_size: int) -> Pixels | None:
    """uint8 [image_size, image_size, 3]; None, with a note to the user, if it is no image."""
    try:
        return read_file(path, rule.at(image_size))
    except (ImageError, OSError) as error:
        note(f"{path} is skipped: {error}")
        return None
