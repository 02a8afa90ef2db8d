"""HEIC, where the extra is installed (`make heic`): pixels, turns, limits and broken files."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from contracts.images.decoding import decode, open_header, read
from contracts.images.errors import TooManyPixelsError, UnreadableImageError
from contracts.images.formats import HEIC_IS_READ, SUFFIXES
from contracts.resizing import ResizeRule
from tests.contracts.images.corpus.metadata import STORED
from tests.contracts.images.corpus.writers import scene, turned

needs_heic = pytest.mark.skipif(not HEIC_IS_READ, reason="needs pillow-heif: `make heic`")
SCENE = scene(96, 64)


def heic(pixels: np.ndarray, mode: str = "RGB", **options: object) -> bytes:
    import pillow_heif  # noqa: PLC0415 - an extra

    file = io.BytesIO()
    made = pillow_heif.from_pillow(Image.fromarray(pixels, mode))
    made.save(file, quality=-1, chroma=444, **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(open_header(data, 10**6)).image).astype(int)


@needs_heic
def test_the_pixels_are_right() -> None:
    assert np.abs(pixels(heic(SCENE)) - SCENE).max() <= 4
    assert {".heic", ".heif", ".hif"} <= SUFFIXES


@needs_heic
@pytest.mark.parametrize("orientation", STORED)
def test_it_is_turned_once_by_its_own_properties(orientation: int) -> None:
    """pillow-heif writes an orientation of EXIF as `irot` and `imir`, as iPhones do."""
    stored = np.ascontiguousarray(STORED[orientation](SCENE))
    assert np.abs(pixels(heic(stored, exif=turned(orientation))) - SCENE).max() <= 4


@needs_heic
def test_transparency_is_laid_over_white() -> None:
    alpha = np.zeros((64, 96, 1), np.uint8)
    alpha[:, 48:] = 255
    found = pixels(heic(np.concatenate([SCENE, alpha], axis=-1), "RGBA"))
    assert (found[:, :46] >= 253).all()
    assert np.abs(found[:, 50:] - SCENE[:, 50:]).max() <= 4


@needs_heic
def test_metadata_and_thumbnails_change_nothing() -> None:
    plain = pixels(heic(SCENE))
    for options in (
        {"exif": b"Exif\0\0garbage"},
        {"xmp": b"<not xml"},
        {"thumbnails": [32]},
    ):
        assert np.array_equal(pixels(heic(SCENE, **options)), plain)


@needs_heic
def test_it_has_the_same_limits() -> None:
    data = heic(SCENE)
    with pytest.raises(TooManyPixelsError, match="96×64"):
        open_header(data, 96 * 64 - 1)
    for part in (0.1, 0.5, 0.9):
        with pytest.raises(UnreadableImageError):
            read(data[: int(part * len(data))], ResizeRule(8, 8))


def test_without_the_extra_it_is_named() -> None:
    """In a process that cannot find pillow-heif, whether it is installed or not."""
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'pillow_heif' else real(name, *rest)\n"
        "from contracts.images.formats import sniff, SUFFIXES\n"
        "assert '.heic' not in SUFFIXES\n"
        "sniff(b'\\0\\0\\0\\x18ftypheic\\0\\0\\0\\0mif1heic')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "a HEIC image" in done.stderr
    assert "make heic" in done.stderr
