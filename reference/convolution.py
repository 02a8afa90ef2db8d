"""BiT's layers: standardised convolutions and GroupNorm, as Flax modules.

In and out: images or features [N, H, W, C]. Names of parameters are those of the published files.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from contracts.published import BIT_GROUPS

GROUP_NORM_EPSILON = 1e-5
STANDARDIZATION_EPSILON = 1e-10


class StdConv(nn.Module):
    """A convolution whose kernel is standardised per output channel; padding fixed, symmetric."""

    features: int
    size: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        mean = jnp.mean(kernel, axis=(0, 1, 2))
        variance = jnp.var(kernel, axis=(0, 1, 2))
        kernel = (kernel - mean) / jnp.sqrt(variance + STANDARDIZATION_EPSILON)
        padding = [(self.size // 2, self.size // 2)] * 2
        return jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (self.stride, self.stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class GroupNorm(nn.Module):
    """GroupNorm over 32 groups of channels, under the published names of its parameters.

    Statistics are float32. They come from one pass over the features, channel by channel; the
    statistics of groups are computed from those of channels. When the features themselves were
    reshaped to groups and read twice, a whole network took twice the time in the model of the TPU's
    compiler (docs/tpu.md).
    """

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        gamma = self.param("gamma", nn.initializers.ones, (channels,))
        beta = self.param("beta", nn.initializers.zeros, (channels,))
        exact = x.astype(jnp.float32)
        mean = _of_groups(jnp.mean(exact, axis=(1, 2)))
        square = _of_groups(jnp.mean(jnp.square(exact), axis=(1, 2)))
        variance = jnp.maximum(square - jnp.square(mean), 0)  # rounding may make it negative
        scale = gamma * jax.lax.rsqrt(variance + GROUP_NORM_EPSILON)
        shift = beta - mean * scale
        return (exact * scale[:, None, None] + shift[:, None, None]).astype(self.dtype)


def _of_groups(means: jax.Array) -> jax.Array:
    """Means of channels [N, C] to means of groups [N, C]: each channel gets its group's mean."""
    grouped = jnp.mean(means.reshape(means.shape[0], BIT_GROUPS, -1), axis=2)
    return jnp.repeat(grouped, means.shape[1] // BIT_GROUPS, axis=1)


class Conv(nn.Module):
    """A `StdConv` in a scope of its own, as the published names require."""

    features: int
    size: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        name = "standardized_conv2d"
        return StdConv(self.features, self.size, self.stride, self.dtype, name=name)(x)
