"""Augmentation: what changes, what must not, and that luck comes from the key alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from reference.augment import flip_and_crop, mix, normalise
from reference.augment_image import OPERATIONS, crop_box, randaugment, random_resized_crop

RANDOM = np.random.default_rng(0)
IMAGES = jnp.asarray(RANDOM.integers(0, 256, (6, 16, 16, 3)), jnp.uint8)
TARGETS = jnp.eye(6)


def photo() -> Image.Image:
    pixels = RANDOM.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((32, 24), Image.Resampling.BICUBIC)


def test_pixels_become_minus_one_to_one() -> None:
    assert normalise(jnp.array([0, 255], jnp.uint8)).tolist() == [-1.0, 1.0]


def test_flips_alone_mirror_about_half_of_the_images() -> None:
    images = jnp.tile(IMAGES[:1], (200, 1, 1, 1))
    found = flip_and_crop(images, jax.random.key(0), 0)
    mirrored = np.all(found == images[:, :, ::-1], axis=(1, 2, 3))
    assert np.all(mirrored | np.all(found == images, axis=(1, 2, 3)))
    assert 70 < mirrored.sum() < 130


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.5, 0.0), (0.0, 1.0), (0.5, 1.0)])
def test_mixing_gives_each_target_the_share_of_its_pixels(mixup: float, cutmix: float) -> None:
    flat = jnp.broadcast_to(jnp.arange(6.0)[:, None, None, None], (6, 16, 16, 3))
    mixing = jax.jit(mix, static_argnums=(3, 4))
    shares = []
    for seed in range(20):
        images, targets = mixing(flat, TARGETS, jax.random.key(seed), mixup, cutmix)
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
        # The images' values are their numbers, so the mean is the target's expectation.
        np.testing.assert_allclose(
            images.mean(axis=(1, 2, 3)), targets @ jnp.arange(6.0), atol=1e-5
        )
        shares.append(float(targets[3, 3]))
        if not mixup:
            assert set(np.unique(images[3])) <= {2.0, 3.0}
    assert min(shares) < 0.6
    assert max(shares) > 0.8


def test_without_mixing_nothing_changes() -> None:
    images, targets = mix(IMAGES, TARGETS, jax.random.key(0), 0, 0)
    assert images is IMAGES
    assert targets is TARGETS


def test_crop_boxes_keep_to_the_image_and_the_area() -> None:
    for seed in range(200):
        left, top, right, bottom = crop_box(100, 60, 0.25, np.random.default_rng(seed))
        assert 0 <= left < right <= 100
        assert 0 <= top < bottom <= 60
        assert (right - left) * (bottom - top) > 0.24 * 6000
    assert crop_box(1000, 10, 0.9, np.random.default_rng(0)) == (0, 0, 1000, 10)  # nothing fits
    crop = random_resized_crop(photo(), 16, 0.3, np.random.default_rng(0))
    assert crop.size == (16, 16)


def generator(*, positive: bool) -> np.random.Generator:
    """One that draws this sign first."""
    random = np.random.default_rng(2 if positive else 0)
    assert (np.random.default_rng(2 if positive else 0).random() < 0.5) is positive
    return random


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("magnitude", [0.5, 1.5, 2.0])  # 5, 15 and 20 of RandAugment
def test_each_operation_keeps_size_and_mode(name: str, magnitude: float) -> None:
    for positive in (True, False):
        changed = OPERATIONS[name](photo(), magnitude, generator(positive=positive))
        assert (changed.size, changed.mode) == ((32, 24), "RGB")


GREYS = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2))


def greys(name: str, magnitude: float) -> list[int]:
    """What becomes of each of the 256 levels."""
    found = np.asarray(OPERATIONS[name](GREYS, magnitude / 10, generator(positive=True)))
    assert np.all(found == found[:, :, :1])
    levels: list[int] = found[0, :, 0].tolist()
    return levels


@pytest.mark.parametrize(
    ("name", "magnitude", "expected"),
    [
        # big_vision's: int(4 M / 10) bits, int(256 M / 10), int(110 M / 10), 1.8 M / 10 + 0.1
        ("posterize", 10, lambda v: v & 0b11110000),
        ("posterize", 15, lambda v: v & 0b11111100),
        ("posterize", 20, lambda v: v),
        ("solarize", 5, lambda v: v if v < 128 else 255 - v),
        ("solarize", 10, lambda v: v),
        ("solarize", 15, lambda v: v),  # a threshold of 384
        ("solarize_add", 10, lambda v: min(v + 110, 255) if v < 128 else v),
        ("solarize_add", 15, lambda v: min(v + 165, 255) if v < 128 else v),
        ("invert", 15, lambda v: 255 - v),
        ("brightness", 5, lambda v: v),
        ("brightness", 15, lambda v: min(v * 2.8, 255)),
        ("color", 15, lambda v: v),
        ("contrast", 15, lambda v: min(max(128 + 2.8 * (v - 128), 0), 255)),
    ],
)
def test_operations_do_to_grey_what_their_published_arguments_say(
    name: str, magnitude: float, expected: Callable[[int], float]
) -> None:
    wanted = [expected(level) for level in range(256)]
    np.testing.assert_allclose(greys(name, magnitude), wanted, atol=1)  # rounding


def test_lengths_are_meant_for_224_pixels_and_shrink_with_the_image() -> None:
    image = Image.new("RGB", (224, 224), (255, 255, 255))
    small = image.resize((32, 32))

    def grey(name: str, image: Image.Image, row: int, *, positive: bool = True) -> list[int]:
        changed = OPERATIONS[name](image, 1.5, generator(positive=positive))
        rows = np.asarray(changed)[row, :, 0].astype(int)
        columns: list[int] = np.flatnonzero(np.abs(rows - 128) < 64).tolist()
        return columns

    assert grey("translate_x", image, 112) == list(range(224 - 150, 224))
    assert grey("translate_x", image, 112, positive=False) == list(range(150))
    assert len(grey("translate_x", small, 16)) == pytest.approx(150 / 7, abs=1)
    x, y = (int(value) for value in generator(positive=True).integers(224, size=2))
    assert grey("cutout", image, y) == list(range(max(x - 60, 0), min(x + 60, 224)))
    assert not grey("cutout", image, y - 61 if y > 60 else y + 60)


def test_rotation_and_shear_go_as_far_as_published() -> None:
    bar = Image.new("RGB", (224, 224))
    bar.paste((255, 255, 255), (110, 0, 114, 224))  # upright, through the middle
    turned = np.asarray(OPERATIONS["rotate"](bar, 1.5, generator(positive=True))).astype(int)[
        :, :, 0
    ]
    assert turned[112 - 50, 112 - 50] > 200  # 45 degrees, against the clock
    sheared = np.asarray(OPERATIONS["shear_x"](bar, 1.5, generator(positive=True))).astype(int)[
        :, :, 0
    ]
    # x' = x + 0.45 y is where a pixel comes from, so row 100 has the bar 45 pixels to the left.
    assert np.argmax(sheared[100]) == pytest.approx(111 - 45, abs=2)


def test_randaugment_depends_on_its_generator_alone() -> None:
    image = photo()
    one, same, other = (
        np.asarray(randaugment(image, 3, 7, np.random.default_rng(seed))) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
