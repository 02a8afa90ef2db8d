"""The Vision Transformer in Flax (Dosovitskiy et al., 2020, arXiv 2010.11929).

In: float32 images [N, H, W, 3], already normalised to [-1, 1]. Out: float32 logits [N, K]. `dtype`
is the type of the computation; parameters, statistics of LayerNorm and logits stay float32. The
module names are the keys of Google's published checkpoints (their first generation, which numbers
the parts of a block in one sequence). This module does not depend on files, data or devices.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from contracts.variants import ViTSizes
from reference.regularise import skip_rate, skip_some

LAYER_NORM_EPSILON = 1e-6
POSITIONS_DEVIATION = 0.02  # standard deviation of the positions' initial values


class MlpBlock(nn.Module):
    """Two dense layers with a GELU between them, applied to the last axis."""

    mlp_dim: int
    dtype: Any
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nn.gelu(self._dense(self.mlp_dim)(x))  # the tanh form, as published
        y = nn.Dropout(self.dropout)(y, deterministic=not train)
        y = self._dense(x.shape[-1])(y)
        z: jax.Array = nn.Dropout(self.dropout)(y, deterministic=not train)
        return z

    def _dense(self, width: int) -> nn.Dense:
        return nn.Dense(
            width,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            bias_init=nn.initializers.normal(1e-6),
        )


class EncoderBlock(nn.Module):
    """Self-attention, then an MLP, each behind a LayerNorm and a skip connection."""

    config: ViTSizes
    dtype: Any
    dropout: float = 0.0
    skip_rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nn.LayerNorm(LAYER_NORM_EPSILON, self.dtype, name="LayerNorm_0")(x)
        attention = nn.MultiHeadDotProductAttention(
            self.config.num_heads,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name="MultiHeadDotProductAttention_1",
        )
        y = nn.Dropout(self.dropout)(attention(y, y), deterministic=not train)
        x = x + skip_some(self, y, self.skip_rate, train=train)
        y = nn.LayerNorm(LAYER_NORM_EPSILON, self.dtype, name="LayerNorm_2")(x)
        mlp = MlpBlock(self.config.mlp_dim, self.dtype, self.dropout, name="MlpBlock_3")
        return x + skip_some(self, mlp(y, train=train), self.skip_rate, train=train)


class PositionEmbedding(nn.Module):
    """Adds one learnt vector per token position."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (1, *x.shape[1:])
        positions = self.param("pos_embedding", nn.initializers.normal(POSITIONS_DEVIATION), shape)
        y: jax.Array = x + positions.astype(x.dtype)
        return y


class Encoder(nn.Module):
    """Position embedding, the blocks, a last LayerNorm."""

    config: ViTSizes
    dtype: Any
    dropout: float = 0.0
    stochastic_depth: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = PositionEmbedding(name="posembed_input")(x)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        for index in range(self.config.num_layers):
            rate = skip_rate(self.stochastic_depth, index, self.config.num_layers)
            name = f"encoderblock_{index}"
            block = EncoderBlock(self.config, self.dtype, self.dropout, rate, name=name)
            x = block(x, train=train)
        y: jax.Array = nn.LayerNorm(LAYER_NORM_EPSILON, self.dtype, name="encoder_norm")(x)
        return y


class VisionTransformer(nn.Module):
    """Patch embedding, the encoder, the class token or the mean of all tokens, head."""

    config: ViTSizes
    num_classes: int
    dtype: Any = jnp.float32
    dropout: float = 0.0
    stochastic_depth: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        sizes, patch = self.config, (self.config.patch_size, self.config.patch_size)
        x = nn.Conv(sizes.hidden_size, patch, patch, dtype=self.dtype, name="embedding")(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])  # tokens in row-major order
        if sizes.class_token:
            token = self.param("cls", nn.initializers.zeros, (1, 1, sizes.hidden_size))
            token = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, x.shape[2]))
            x = jnp.concatenate([token, x], axis=1)
        encoder = Encoder(
            sizes, self.dtype, self.dropout, self.stochastic_depth, name="Transformer"
        )
        x = encoder(x, train=train)
        x = x[:, 0] if sizes.class_token else jnp.mean(x, axis=1, dtype=jnp.float32)
        x = x.astype(jnp.float32)
        if sizes.representation_size is not None:
            x = jnp.tanh(nn.Dense(sizes.representation_size, name="pre_logits")(x))
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(x)
