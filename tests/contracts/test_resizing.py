"""contracts/resizing.py against what TensorFlow's and Pillow's own resizing give."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts.resizing import ResizeRule

GOLDEN = Path(__file__).parents[1] / "golden/preprocess/case.npz"
# Rounding to uint8 is half a level; float32 sums may differ by a little more.
HALF_A_LEVEL = 0.501


@pytest.mark.parametrize(
    ("golden", "rule"),
    [
        ("official_eval", ResizeRule(32, 32, antialias=False)),
        (
            "paper_resmall_crop",
            ResizeRule(32, 32, "shortest", antialias=False, crop_fraction=8 / 9),
        ),
        ("paper_resize_crop", ResizeRule(32, 32, antialias=False, crop_fraction=8 / 9)),
    ],
)
def test_without_antialias_it_is_tensorflows_half_pixel_bilinear(
    golden: str, rule: ResizeRule
) -> None:
    with np.load(GOLDEN) as case:
        for image, expected in zip(case["images"], case[golden], strict=True):
            levels = expected if expected.min() >= 0 else expected * 127.5 + 127.5
            pixels = rule.apply(Image.fromarray(image))
            assert np.abs(pixels - levels).max() < HALF_A_LEVEL


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_with_antialias_it_is_pillows_resize(interpolation: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 61, 3), np.uint8))
    pixels = ResizeRule(32, 24, interpolation=interpolation).apply(image)
    kind = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    assert np.array_equal(pixels, np.asarray(image.resize((24, 32), kind[interpolation])))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (31, 33), (32, 32)])
@pytest.mark.parametrize("resize", ["squash", "shortest"])
@pytest.mark.parametrize("crop_fraction", [1.0, 0.875])
def test_every_size_becomes_the_models_own(
    antialias: bool, size: tuple[int, int], resize: str, crop_fraction: float
) -> None:
    rule = ResizeRule(32, 48, resize, antialias=antialias, crop_fraction=crop_fraction)
    pixels = rule.apply(Image.new("RGB", size, (10, 200, 30)))
    assert pixels.shape == (32, 48, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert (pixels == (10, 200, 30)).all()


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for antialias in (True, False):
        assert np.array_equal(
            ResizeRule(32, 32, antialias=antialias).apply(Image.fromarray(image)), image
        )


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(90, 61), (61, 90), (20, 30)])
def test_the_crop_is_cut_from_the_resized_image(interpolation: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    rule = ResizeRule(32, 32, "shortest", interpolation, crop_fraction=0.875)
    width, height = rule.target(*image.size)
    kind = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    whole = np.asarray(image.resize((width, height), kind[interpolation]))
    left, top = (width - 32) // 2, (height - 32) // 2
    expected = whole[top : top + 32, left : left + 32].astype(int)
    assert np.abs(rule.apply(image).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("antialias", [True, False])
def test_a_very_long_image_costs_no_more_memory(antialias: bool) -> None:
    image = Image.new("RGB", (1_000_000, 1), (1, 2, 3))  # its short side to 224: 672 GB
    rule = ResizeRule(224, 224, "shortest", antialias=antialias)
    assert (rule.apply(image) == (1, 2, 3)).all()


def test_shortest_keeps_the_aspect_and_the_centre() -> None:
    image = np.zeros((32, 96, 3), np.uint8)
    image[:, 32:64] = 255
    assert (ResizeRule(32, 32, "shortest").apply(Image.fromarray(image)) == 255).all()


def test_parameters_make_the_rule() -> None:
    stated = {"resize": "shortest", "interpolation": "bicubic", "crop_fraction": "0.875"}
    assert ResizeRule.from_parameters(224, 224, stated) == ResizeRule(
        224, 224, "shortest", "bicubic", True, 0.875
    )
    assert ResizeRule.from_parameters(224, 224, {}) == ResizeRule(224, 224)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"resize": "stretch"}, "resize is 'stretch', expected squash or shortest"),
        ({"interpolation": "lanczos"}, "interpolation is 'lanczos', expected bilinear or bicubic"),
        ({"antialias": "yes"}, "antialias is 'yes', expected true or false"),
        ({"crop_fraction": "0"}, "crop_fraction is '0', expected 0.1 to 1.0"),
        ({"crop_fraction": "nan"}, "crop_fraction is 'nan'"),
        ({"crop_fraction": "all"}, "crop_fraction is 'all'"),
        ({"antialias": "false", "interpolation": "bicubic"}, "only defined here for"),
    ],
)
def test_unusable_parameters_are_named(stated: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResizeRule.from_parameters(224, 224, stated)
