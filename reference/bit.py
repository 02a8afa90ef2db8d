"""Big Transfer's ResNet-v2 in Flax (Kolesnikov et al., 2019, arXiv 1912.11370).

In: float32 images [N, H, W, 3], already normalised to [-1, 1]. Out: float32 logits [N, K]. `dtype`
is the type of the computation; parameters, statistics and logits stay float32. The module names are
the keys of Google's published checkpoints. This module does not depend on files, data or devices.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from contracts.published import BIT_ROOT_WIDTH
from contracts.variants import BiTSizes
from reference.convolution import Conv, GroupNorm, StdConv


class PreActivatedConv(nn.Module):
    """GroupNorm, ReLU, convolution; `project` adds the shortcut's 1×1 convolution of the ReLU."""

    features: int
    size: int
    stride: int
    project: tuple[int, int] | None  # features and stride of the shortcut
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = nn.relu(GroupNorm(self.dtype, name="group_norm")(x))
        if self.project is not None:
            x = Conv(self.project[0], 1, self.project[1], self.dtype, name="proj")(y)
        name = "standardized_conv2d"
        return StdConv(self.features, self.size, self.stride, self.dtype, name=name)(y), x


class Unit(nn.Module):
    """A bottleneck: 1×1, 3×3 (which has the stride), 1×1, and the skip connection."""

    features: int
    stride: int
    project: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        narrow, wide = self.features, 4 * self.features
        shortcut = (wide, self.stride) if self.project else None
        y, x = PreActivatedConv(narrow, 1, 1, shortcut, self.dtype, name="a")(x)
        y, _ = PreActivatedConv(narrow, 3, self.stride, None, self.dtype, name="b")(y)
        y, _ = PreActivatedConv(wide, 1, 1, None, self.dtype, name="c")(y)
        return x + y


class Block(nn.Module):
    """Units of one resolution; the first unit changes the resolution and projects its shortcut."""

    units: int
    features: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for index in range(self.units):
            stride, first = (self.stride, True) if index == 0 else (1, False)
            x = Unit(self.features, stride, first, self.dtype, name=f"unit{index + 1:02d}")(x)
        return x


class Head(nn.Module):
    """A plain 1×1 convolution of the pooled features, under its published name."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        zeros = nn.initializers.zeros
        return nn.Conv(self.num_classes, (1, 1), kernel_init=zeros, name="conv2d")(x)


class ResNet(nn.Module):
    """The whole network, in the scope `resnet` of the published files."""

    config: BiTSizes
    num_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = round(BIT_ROOT_WIDTH * self.config.width_factor)
        x = Conv(width, 7, 2, self.dtype, name="root_block")(x)
        # Zeros, not minus infinity: the published weights were trained with that border.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding="VALID")
        for index, units in enumerate(self.config.block_units):
            stride = 1 if index == 0 else 2
            x = Block(units, width * 2**index, stride, self.dtype, name=f"block{index + 1}")(x)
        x = nn.relu(GroupNorm(self.dtype, name="group_norm")(x))
        x = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32)
        return Head(self.num_classes, name="head")(x)[:, 0, 0]


class BigTransfer(nn.Module):
    """The network; its only child is the scope of the published names."""

    config: BiTSizes
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train  # a BiT computes the same while it trains
        return ResNet(self.config, self.num_classes, self.dtype, name="resnet")(images)
