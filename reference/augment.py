"""Augmentation of a batch and normalisation, inside the compiled training step.

In: uint8 images [N, H, W, 3], float32 targets [N, K] and a random key. Out: float32 images in [-1,
1] and targets. All randomness comes from the key alone. So a resumed run gets the same images as an
uninterrupted run, on any number of devices.
"""

import jax
import jax.numpy as jnp


def normalise(images: jax.Array) -> jax.Array:
    """uint8 [0, 255] to float32 [-1, 1], as every published checkpoint expects."""
    return (images.astype(jnp.float32) - 127.5) / 127.5


def flip_and_crop(
    images: jax.Array, key: jax.Array, padding: int, *, flip: bool = True
) -> jax.Array:
    """Mirror half of the images left to right; shift each by up to `padding` pixels.

    The border is filled by reflection.
    """
    count, height, width, channels = images.shape
    flip_key, crop_key = jax.random.split(key)
    flipped = jax.random.bernoulli(flip_key, 0.5, (count, 1, 1, 1))
    images = jnp.where(flipped, images[:, :, ::-1], images) if flip else images
    if padding == 0:
        return images
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, border, mode="reflect")
    offsets = jax.random.randint(crop_key, (count, 2), 0, 2 * padding + 1)

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, channels))

    return jax.vmap(crop)(padded, offsets)


def mix(
    images: jax.Array, targets: jax.Array, key: jax.Array, mixup: float, cutmix: float
) -> tuple[jax.Array, jax.Array]:
    """Mixup (arXiv 1710.09412) or CutMix (arXiv 1905.04899) with the next image of the batch.

    Each batch draws one share from Beta(α, α); where both are on, each batch draws one of the two.
    """
    if not mixup and not cutmix:
        return images, targets
    kind_key, share_key, box_key = jax.random.split(key, 3)
    cut = jax.random.bernoulli(kind_key) if mixup and cutmix else jnp.asarray(cutmix > 0)
    alpha = jnp.where(cut, cutmix, mixup)
    share = jax.random.beta(share_key, alpha, alpha)  # the share of each image that is kept
    # Mixup keeps at least half of each image, as big_vision does (utils.py at 0127fb6, line 1148).
    share = jnp.where(cut, share, jnp.maximum(share, 1 - share))
    _, height, width, _ = images.shape
    side = jnp.sqrt(1 - share)  # the box's side as a share of the image's side
    centre = jax.random.uniform(box_key, (2,))
    rows, columns = jnp.arange(height) / height, jnp.arange(width) / width
    in_rows = jnp.abs(rows - centre[0]) < side / 2
    in_columns = jnp.abs(columns - centre[1]) < side / 2
    box = (in_rows[:, None] & in_columns[None, :]).astype(images.dtype)[None, :, :, None]
    # If a part of the box is outside of the image, a smaller share is replaced than was drawn.
    share = jnp.where(cut, 1 - box.mean(), share)
    weight = jnp.where(cut, 1 - box, share)
    mixed = images * weight + jnp.roll(images, 1, axis=0) * (1 - weight)
    return mixed, targets * share + jnp.roll(targets, 1, axis=0) * (1 - share)
