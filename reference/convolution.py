"""What BiT is made of: standardised convolutions and GroupNorm, as Flax modules.

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
    """GroupNorm over 32 groups of channels, under the published names of its parameters."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gamma = self.param("gamma", nn.initializers.ones, x.shape[-1:])
        beta = self.param("beta", nn.initializers.zeros, x.shape[-1:])
        grouped = x.astype(jnp.float32).reshape(*x.shape[:-1], BIT_GROUPS, -1)
        mean = jnp.mean(grouped, axis=(1, 2, 4), keepdims=True)
        variance = jnp.var(grouped, axis=(1, 2, 4), keepdims=True)
        grouped = (grouped - mean) * jax.lax.rsqrt(variance + GROUP_NORM_EPSILON)
        return (grouped.reshape(x.shape) * gamma + beta).astype(self.dtype)


class Conv(nn.Module):
    """A `StdConv` one level down, as the published names have it."""

    features: int
    size: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        name = "standardized_conv2d"
        return StdConv(self.features, self.size, self.stride, self.dtype, name=name)(x)
