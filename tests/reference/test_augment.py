"""Augmentation: what changes, what must not, and that luck comes from the key alone."""

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


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_keeps_size_and_mode_and_does_something(name: str) -> None:
    image = photo()
    for sign in (-1, 1):
        changed = OPERATIONS[name](image, 1.0, sign)
        assert (changed.size, changed.mode) == (image.size, "RGB")
        unchanged = np.array_equal(np.asarray(changed), np.asarray(image))
        assert unchanged == (name == "identity") or name == "autocontrast"
    if name not in ("autocontrast", "equalize"):  # which have no strength
        np.testing.assert_array_equal(OPERATIONS[name](image, 0.0, 1), image)


def test_randaugment_depends_on_its_generator_alone() -> None:
    image = photo()
    one, same, other = (
        np.asarray(randaugment(image, 3, 7, np.random.default_rng(seed))) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
