"""The Vision Transformer in PyTorch (Dosovitskiy et al., 2020, arXiv 2010.11929), for inference.

In: float32 images [N, H, W, 3] normalised to [-1, 1]. Out: float32 logits [N, K]. The names of
modules and parameters are those of the published checkpoints.
"""

import dataclasses
import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from export.models.encoder import EncoderBlock, PositionEmbedding
from export.models.layers import Dense, Gelu, LayerNorm, PatchEmbedding
from export.published import CheckpointError, PublishedLayer, Shape, anchor, count

_BLOCK = "Transformer/encoderblock_0"
_POSITIONS = "Transformer/posembed_input/pos_embedding"


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Sizes of one ViT."""

    patch_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    image_size: int = 224  # of the weights: they hold one position per token
    num_classes: int = 1000
    classifier: Literal["token", "gap"] = "token"
    representation_size: int | None = None  # of `pre_logits`, in original ImageNet-21k files
    gelu: Gelu = "tanh"
    family: ClassVar[str] = "vit"
    scopes: ClassVar[tuple[str, ...]] = ("embedding/", "Transformer/")

    @classmethod
    def read(cls, shapes: dict[str, Shape]) -> "ViTConfig":
        """Read the sizes off a checkpoint's shapes; raises CheckpointError naming the key."""
        patch_size, _, _, hidden_size = anchor(shapes, "embedding/kernel", "P P 3 d")
        query = f"{_BLOCK}/MultiHeadDotProductAttention_1/query/kernel"
        classifier: Literal["token", "gap"] = "token" if "cls" in shapes else "gap"
        tokens = anchor(shapes, _POSITIONS, "1 S d")[1] - (classifier == "token")
        grid = math.isqrt(tokens)
        if grid * grid != tokens or tokens < 1:
            and_one = " and one for cls" if classifier == "token" else " (there is no cls)"
            raise CheckpointError(
                f"{_POSITIONS}: expected a square number of positions{and_one}, "
                f"found shape {shapes[_POSITIONS]}"
            )
        _, heads, head_width = anchor(shapes, query, "d h e")
        if heads * head_width != hidden_size:
            raise CheckpointError(
                f"{query}: expected heads × width of a head = {hidden_size}, "
                f"found shape {shapes[query]}"
            )
        representation_size = None
        if any(key.startswith("pre_logits/") for key in shapes):
            representation_size = anchor(shapes, "pre_logits/kernel", "d R")[1]
        return cls(
            patch_size,
            hidden_size,
            count(shapes, "Transformer/encoderblock_"),
            heads,
            anchor(shapes, f"{_BLOCK}/MlpBlock_3/Dense_0/kernel", "d m")[1],
            image_size=grid * patch_size,
            num_classes=anchor(shapes, "head/kernel", "d K")[1],
            classifier=classifier,
            representation_size=representation_size,
        )

    def sizes(self) -> tuple[object, ...]:
        """What a row of the table is recognised by."""
        return dataclasses.astuple(self)[:5]

    def build(self, image_size: int) -> "VisionTransformer":
        """The module, without values, for images of `image_size` pixels per side."""
        return VisionTransformer(self, image_size)


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
    "vit_testing": ViTConfig(8, 24, 2, 3, 48, image_size=32, num_classes=10),
}


class Encoder(nn.Module):
    """Position embedding, the blocks, a last LayerNorm."""

    def __init__(self, config: ViTConfig, image_size: int) -> None:
        super().__init__()
        width = config.hidden_size
        grids = config.image_size // config.patch_size, image_size // config.patch_size
        extra = int(config.classifier == "token")
        self.posembed_input = PositionEmbedding(width, extra, *grids)
        self.blocks = [f"encoderblock_{index}" for index in range(config.num_layers)]
        for block in self.blocks:
            self.add_module(
                block, EncoderBlock(width, config.num_heads, config.mlp_dim, config.gelu)
            )
        self.encoder_norm = LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.posembed_input(x)
        for block in self.blocks:
            x = self.get_submodule(block)(x)
        y: Tensor = self.encoder_norm(x)
        return y


class VisionTransformer(PublishedLayer):
    """Patch embedding, the encoder, the class token or the mean of all tokens, head."""

    def __init__(self, config: ViTConfig, image_size: int) -> None:
        super().__init__()
        patch, width = config.patch_size, config.hidden_size
        if image_size % patch:
            near = max(patch, round(image_size / patch) * patch)
            raise CheckpointError(
                f"image size {image_size}: this ViT needs a multiple of {patch}, as {near}"
            )
        self.embedding = PatchEmbedding(patch, width)
        self.cls = nn.Parameter(torch.empty(1, 1, width)) if config.classifier == "token" else None
        self.Transformer = Encoder(config, image_size)
        represented = config.representation_size or width
        self.pre_logits = Dense(width, represented) if config.representation_size else None
        self.head = Dense(represented, config.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embedding(images)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.Transformer(x)
        x = x.mean(dim=1) if self.cls is None else x[:, 0]
        if self.pre_logits is not None:
            x = torch.tanh(self.pre_logits(x))
        y: Tensor = self.head(x)
        return y
