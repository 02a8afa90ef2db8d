"""The Vision Transformer in Flax (Dosovitskiy et al., 2020, arXiv 2010.11929).

In: float32 images [N, H, W, 3], already normalised to [-1, 1]. Out: float32 logits [N, K]. `dtype`
is what is computed in; parameters, statistics of LayerNorm and logits stay float32. The module
names are the keys of Google's published checkpoints (their first generation, which numbers the
parts of a block in one sequence). Nothing here knows about files, data or devices.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

LAYER_NORM_EPSILON = 1e-6
_BLOCK = "Transformer/encoderblock_0"
_QUERY = f"{_BLOCK}/MultiHeadDotProductAttention_1/query/kernel"
_POSITIONS = "Transformer/posembed_input/pos_embedding"


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Sizes of one ViT, in the paper's notation (table 1)."""

    patch_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    class_token: bool = True  # without one, the mean over all tokens is classified
    representation_size: int | None = None  # of `pre_logits`, in original ImageNet-21k files

    # Arrays that the sizes are read from, with their number of dimensions.
    anchors: ClassVar[dict[str, int]] = {
        "embedding/kernel": 4,
        _QUERY: 3,
        f"{_BLOCK}/MlpBlock_3/Dense_0/kernel": 2,
        _POSITIONS: 3,
        "head/kernel": 2,
    }

    @classmethod
    def read(cls, shapes: Mapping[str, tuple[int, ...]]) -> tuple["ViTConfig", int, int]:
        """Sizes, pixels per side and number of classes, off the shapes of a checkpoint."""
        patch_size, _, _, hidden_size = shapes["embedding/kernel"]
        config = cls(
            patch_size,
            hidden_size,
            num_layers=len({k.split("/")[1] for k in shapes if "/encoderblock_" in k}),
            num_heads=shapes[_QUERY][1],
            mlp_dim=shapes[f"{_BLOCK}/MlpBlock_3/Dense_0/kernel"][1],
            class_token="cls" in shapes,
            representation_size=shapes.get("pre_logits/kernel", (0, None))[1],
        )
        if shapes[_QUERY] != (hidden_size, config.num_heads, hidden_size // config.num_heads):
            raise ValueError(f"{_QUERY}: {shapes[_QUERY]} does not divide width {hidden_size}")
        tokens = shapes[_POSITIONS][1] - config.class_token
        return config, patch_size * math.isqrt(tokens), shapes["head/kernel"][1]


VARIANTS: dict[str, ViTConfig] = {
    "vit_ti16": ViTConfig(16, 192, 12, 3, 768),
    "vit_s32": ViTConfig(32, 384, 12, 6, 1536),
    "vit_s16": ViTConfig(16, 384, 12, 6, 1536),
    "vit_b32": ViTConfig(32, 768, 12, 12, 3072),
    "vit_b16": ViTConfig(16, 768, 12, 12, 3072),
    "vit_l32": ViTConfig(32, 1024, 24, 16, 4096),
    "vit_l16": ViTConfig(16, 1024, 24, 16, 4096),
    "vit_h14": ViTConfig(14, 1280, 32, 16, 5120),
    # Ours: for tests that must take seconds.
    "vit_testing": ViTConfig(8, 24, 2, 3, 48),
}


class MlpBlock(nn.Module):
    """Two dense layers with a GELU between them, applied to the last axis."""

    mlp_dim: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.gelu(nn.Dense(self.mlp_dim, dtype=self.dtype)(x))  # the tanh form, as published
        return nn.Dense(x.shape[-1], dtype=self.dtype)(y)


class EncoderBlock(nn.Module):
    """Self-attention, then an MLP, each behind a LayerNorm and a skip connection."""

    config: ViTConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.LayerNorm(LAYER_NORM_EPSILON, self.dtype, name="LayerNorm_0")(x)
        attention = nn.MultiHeadDotProductAttention(
            self.config.num_heads, dtype=self.dtype, name="MultiHeadDotProductAttention_1"
        )
        x = x + attention(y, y)
        y = nn.LayerNorm(LAYER_NORM_EPSILON, self.dtype, name="LayerNorm_2")(x)
        return x + MlpBlock(self.config.mlp_dim, self.dtype, name="MlpBlock_3")(y)


class PositionEmbedding(nn.Module):
    """Adds one learnt vector per place."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (1, *x.shape[1:])
        positions = self.param("pos_embedding", nn.initializers.normal(0.02), shape)
        y: jax.Array = x + positions.astype(x.dtype)
        return y


class Encoder(nn.Module):
    """Position embedding, the blocks, a last LayerNorm."""

    config: ViTConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = PositionEmbedding(name="posembed_input")(x)
        for index in range(self.config.num_layers):
            x = EncoderBlock(self.config, self.dtype, name=f"encoderblock_{index}")(x)
        y: jax.Array = nn.LayerNorm(LAYER_NORM_EPSILON, self.dtype, name="encoder_norm")(x)
        return y


class VisionTransformer(nn.Module):
    """Patch embedding, the encoder, the class token or the mean of all tokens, head."""

    config: ViTConfig
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        sizes, patch = self.config, (self.config.patch_size, self.config.patch_size)
        x = nn.Conv(sizes.hidden_size, patch, patch, dtype=self.dtype, name="embedding")(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])  # tokens in row-major order
        if sizes.class_token:
            token = self.param("cls", nn.initializers.zeros, (1, 1, sizes.hidden_size))
            token = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, x.shape[2]))
            x = jnp.concatenate([token, x], axis=1)
        x = Encoder(sizes, self.dtype, name="Transformer")(x)
        x = x[:, 0] if sizes.class_token else jnp.mean(x, axis=1, dtype=jnp.float32)
        x = x.astype(jnp.float32)
        if sizes.representation_size is not None:
            x = jnp.tanh(nn.Dense(sizes.representation_size, name="pre_logits")(x))
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(x)
