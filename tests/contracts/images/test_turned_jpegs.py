"""A large JPEG that is turned: decoded at a fraction, it loses no more than an upright one."""

import io

import numpy as np
import pytest
from PIL import Image

from contracts.images.decoding import model_input, open_header
from contracts.resizing import Pixels, ResizeRule
from tests.contracts.images.corpus.metadata import STORED
from tests.contracts.images.corpus.writers import saved, scene, turned

# Sides that are no multiples of 8, so that the last blocks reach over the edges.
SIZES = ((1437, 1613), (1613, 1437), (1501, 1499))
RULES = {
    "squash": ResizeRule(224, 224),
    "shortest": ResizeRule(224, 224, "shortest", "bicubic", True, 0.9, "torchvision"),
    "tiny": ResizeRule(32, 32, "shortest", crop_fraction=0.875),
    "wide": ResizeRule(64, 160, "shortest"),
}


def photograph(width: int, height: int) -> Pixels:
    return np.asarray(
        Image.fromarray(scene(60, 50)).resize((width, height), Image.Resampling.BICUBIC)
    )


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("size", SIZES)
def test_every_turn_is_as_near_to_the_whole_as_the_upright_one(
    size: tuple[int, int], rule: ResizeRule
) -> None:
    upright = photograph(*size)
    exact = rule.apply(Image.fromarray(upright)).astype(int)
    apart = {}
    for orientation, stored in STORED.items():
        pixels = np.ascontiguousarray(stored(upright))
        block = b"Exif\0\0" + turned(orientation)
        data = saved(pixels, "JPEG", quality=98, subsampling=0, exif=block)
        encoded = open_header(data, 10**8)
        found = model_input(encoded, rule).astype(int)
        assert encoded.image.size != (encoded.width, encoded.height) or rule.width > 200
        apart[orientation] = np.abs(found - exact).mean()
    assert max(apart.values()) < 0.45
    assert max(apart.values()) < apart[1] + 0.05


def test_the_same_image_is_read_however_it_is_turned() -> None:
    """The pixels of a turned copy differ by what its own compression changed, at every place."""
    upright = photograph(1437, 1613)
    rule = ResizeRule(48, 48)
    found = {}
    for orientation, stored in STORED.items():
        data = saved(
            np.ascontiguousarray(stored(upright)),
            "JPEG",
            **{"quality": 98, "subsampling": 0, "exif": b"Exif\0\0" + turned(orientation)},
        )
        found[orientation] = model_input(open_header(data, 10**8), rule).astype(int)
    for pixels in found.values():
        assert np.abs(pixels - found[1]).max() <= 3


def test_a_fraction_is_what_the_jpeg_itself_gives() -> None:
    """The oracle is Pillow's own reducing draft and resize of an upright file."""
    data = saved(photograph(1600, 1400), "JPEG", quality=95)
    plain = Image.open(io.BytesIO(data))
    plain.draft("RGB", (64, 64))
    expected = np.asarray(plain.resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(model_input(open_header(data, 10**8), ResizeRule(32, 32)), expected)
