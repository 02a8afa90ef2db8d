"""The MLP-Mixer in Flax, in the terms of the paper (Tolstikhin et al., 2021, arXiv 2105.01601).

In: float32 images [N, H, W, 3], already normalised to [-1, 1]. Out: float32 logits [N, K]. `dtype`
is the type of the computation; parameters, statistics of LayerNorm and logits stay float32. The
module names are the keys of Google's published checkpoints, so a flattened parameter tree *is* a
checkpoint. This module does not depend on files, data or devices.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from contracts.variants import MixerSizes
from reference.regularise import skip_rate, skip_some

LAYER_NORM_EPSILON = 1e-6


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x @ kernel` for x [..., in] and kernel [in, out], with the kernel's gradient as xᵀ·g.

    JAX's own rule computes (gᵀ·x)ᵀ, for which XLA's CPU compiler writes g out transposed, a column
    at a time. On two cores the MLP's forward and backward pass took 2.7 times as long that way.
    """
    return x @ kernel


def _matmul_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _matmul_backward(
    saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    rows_in = x.reshape(-1, x.shape[-1])
    return g @ kernel.T, rows_in.T @ g.reshape(-1, g.shape[-1])


matmul.defvjp(_matmul_forward, _matmul_backward)


def _dot_general(x: jax.Array, kernel: jax.Array, *_: object, **__: object) -> jax.Array:
    return matmul(x, kernel)  # `nn.Dense` only ever contracts x's last axis with kernel's first


class MlpBlock(nn.Module):
    """Two dense layers with a GELU between them, applied to the last axis."""

    mlp_dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.Dense(self.mlp_dim, dtype=self.dtype, dot_general=_dot_general)(x)
        y = nn.gelu(y)  # the tanh form, which the published weights were trained with
        return nn.Dense(x.shape[-1], dtype=self.dtype, dot_general=_dot_general)(y)


class MixerBlock(nn.Module):
    """Token mixing, then channel mixing, each behind a LayerNorm and a skip connection."""

    tokens_mlp_dim: int
    channels_mlp_dim: int
    dtype: Any = jnp.float32
    skip_rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=self.dtype)(x)
        y = jnp.swapaxes(y, 1, 2)  # [N, S, C] -> [N, C, S]
        y = MlpBlock(self.tokens_mlp_dim, self.dtype, name="token_mixing")(y)
        x = x + skip_some(self, jnp.swapaxes(y, 1, 2), self.skip_rate, train=train)
        y = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=self.dtype)(x)
        y = MlpBlock(self.channels_mlp_dim, self.dtype, name="channel_mixing")(y)
        return x + skip_some(self, y, self.skip_rate, train=train)


class MlpMixer(nn.Module):
    """The whole network: per-patch embedding, the Mixer blocks, global average pooling, head."""

    config: MixerSizes
    num_classes: int
    dtype: Any = jnp.float32
    stochastic_depth: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        sizes = self.config
        patch = (sizes.patch_size, sizes.patch_size)
        x = nn.Conv(sizes.hidden_dim, patch, patch, dtype=self.dtype, name="stem")(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])  # tokens in row-major order
        for index in range(sizes.num_blocks):
            rate = skip_rate(self.stochastic_depth, index, sizes.num_blocks)
            widths = (sizes.tokens_mlp_dim, sizes.channels_mlp_dim)
            block = MixerBlock(*widths, self.dtype, rate, name=f"MixerBlock_{index}")
            x = block(x, train=train)
        x = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=self.dtype, name="pre_head_layer_norm")(
            x
        )
        x = jnp.mean(x, axis=1, dtype=jnp.float32)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(x)
