"""Augmentation and normalisation, inside the compiled training step.

In: uint8 images [N, H, W, 3] and a random key. Out: float32 images in [-1, 1]. Every picture's
luck comes from the key alone, so a resumed run sees what an unbroken run would have seen.
"""

import jax
import jax.numpy as jnp


def normalise(images: jax.Array) -> jax.Array:
    """uint8 [0, 255] to float32 [-1, 1], as every published checkpoint expects."""
    return (images.astype(jnp.float32) - 127.5) / 127.5


def flip_and_crop(images: jax.Array, key: jax.Array, padding: int) -> jax.Array:
    """Mirror half of the pictures left to right; shift each by up to `padding` pixels.

    The border is filled by reflection.
    """
    count, height, width, channels = images.shape
    flip_key, crop_key = jax.random.split(key)
    flipped = jax.random.bernoulli(flip_key, 0.5, (count, 1, 1, 1))
    images = jnp.where(flipped, images[:, :, ::-1], images)
    if padding == 0:
        return images
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, border, mode="reflect")
    offsets = jax.random.randint(crop_key, (count, 2), 0, 2 * padding + 1)

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, channels))

    return jax.vmap(crop)(padded, offsets)
