"""The MLP-Mixer in PyTorch (Tolstikhin et al., 2021, arXiv 2105.01601), for inference.

In: float32 images [N, H, W, 3] normalised to [-1, 1]. Out: float32 logits [N, K]. The names of
modules and parameters are those of the published checkpoints.
"""

import dataclasses
import math
from typing import ClassVar

from torch import Tensor, nn

from export.models.layers import (
    Dense,
    Gelu,
    LayerNorm,
    MlpBlock,
    PatchEmbedding,
    TokenMlpBlock,
)
from export.published import CheckpointError, Shape, anchor, count


@dataclasses.dataclass(frozen=True)
class MixerConfig:
    """Sizes of one Mixer, in the paper's notation (table 1)."""

    patch_size: int  # P: pixels per side of a patch
    hidden_dim: int  # C: channels of a token
    num_blocks: int
    tokens_mlp_dim: int  # D_S: hidden width of the token-mixing MLP
    channels_mlp_dim: int  # D_C: hidden width of the channel-mixing MLP
    image_size: int = 224  # of the weights: they hold one row per token
    num_classes: int = 1000
    gelu: Gelu = "tanh"
    family: ClassVar[str] = "mixer"
    scopes: ClassVar[tuple[str, ...]] = ("stem/", "MixerBlock_")

    @classmethod
    def read(cls, shapes: dict[str, Shape]) -> "MixerConfig":
        """Read the sizes off a checkpoint's shapes; raises CheckpointError naming the key."""
        patch_size, _, _, hidden_dim = anchor(shapes, "stem/kernel", "P P 3 C")
        tokens_key = "MixerBlock_0/token_mixing/Dense_0/kernel"
        tokens, tokens_mlp_dim = anchor(shapes, tokens_key, "S D_S")
        _, channels_mlp_dim = anchor(shapes, "MixerBlock_0/channel_mixing/Dense_0/kernel", "C D_C")
        grid = math.isqrt(tokens)
        if grid * grid != tokens:
            raise CheckpointError(
                f"{tokens_key}: expected a square number of tokens, found {tokens}"
            )
        return cls(
            patch_size,
            hidden_dim,
            count(shapes, "MixerBlock_"),
            tokens_mlp_dim,
            channels_mlp_dim,
            image_size=grid * patch_size,
            num_classes=anchor(shapes, "head/kernel", "C K")[1],
        )

    def sizes(self) -> tuple[object, ...]:
        """What a row of the table is recognised by."""
        return dataclasses.astuple(self)[:5]

    def build(self, image_size: int) -> "MlpMixer":
        """The module, without values, for images of `image_size` pixels per side."""
        return MlpMixer(self, image_size)


VARIANTS: dict[str, MixerConfig] = {
    "mixer_s32": MixerConfig(32, 512, 8, 256, 2048),
    "mixer_s16": MixerConfig(16, 512, 8, 256, 2048),
    "mixer_b32": MixerConfig(32, 768, 12, 384, 3072),
    "mixer_b16": MixerConfig(16, 768, 12, 384, 3072),
    "mixer_l32": MixerConfig(32, 1024, 24, 512, 4096),
    "mixer_l16": MixerConfig(16, 1024, 24, 512, 4096),
    "mixer_h14": MixerConfig(14, 1280, 32, 640, 5120),
    # Ours: small enough to be trained on CIFAR-10 by a laptop's CPU, and to be shipped.
    "mixer_cifar10": MixerConfig(4, 128, 8, 64, 256, image_size=32, num_classes=10),
    # Ours: for tests that must take seconds.
    "mixer_testing": MixerConfig(8, 16, 2, 8, 32, image_size=32, num_classes=10),
}


class MixerBlock(nn.Module):
    """Token mixing, then channel mixing, each behind a LayerNorm and a skip connection."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        tokens = (config.image_size // config.patch_size) ** 2
        self.LayerNorm_0 = LayerNorm(config.hidden_dim)
        self.token_mixing = TokenMlpBlock(tokens, config.tokens_mlp_dim, config.gelu)
        self.LayerNorm_1 = LayerNorm(config.hidden_dim)
        self.channel_mixing = MlpBlock(config.hidden_dim, config.channels_mlp_dim, config.gelu)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token_mixing(self.LayerNorm_0(x))
        y: Tensor = x + self.channel_mixing(self.LayerNorm_1(x))
        return y


class MlpMixer(nn.Module):
    """Per-patch embedding, the Mixer blocks, global average pooling, head.

    At K times the resolution of the weights the paper (appendix C) makes the token-mixing MLP
    block-diagonal, one copy per spatial tile. Then nothing but the final mean ever joins two tiles,
    so the tiles are simply images of their own until then: same logits, K² times fewer FLOPs in
    token mixing than with the block-diagonal matrices, and no permutation in the blocks. (S/32 at
    448 pixels in onnxruntime: 1.17 and 1.22 times less CPU time at batch 1 and 8.)
    """

    def __init__(self, config: MixerConfig, image_size: int) -> None:
        super().__init__()
        tiles, rest = divmod(image_size, config.image_size)
        if rest or tiles < 1:
            near = config.image_size * max(1, tiles)
            raise CheckpointError(
                f"image size {image_size}: these Mixer weights need a multiple of "
                f"{config.image_size}, for example {near} or {near + config.image_size}"
            )
        self.tiles = tiles
        self.stem = PatchEmbedding(config.patch_size, config.hidden_dim, tiles)
        self.blocks = [f"MixerBlock_{index}" for index in range(config.num_blocks)]
        for block in self.blocks:
            self.add_module(block, MixerBlock(config))
        self.pre_head_layer_norm = LayerNorm(config.hidden_dim)
        self.head = Dense(config.hidden_dim, config.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = self.get_submodule(block)(x)
        x = self.pre_head_layer_norm(x).mean(dim=1)
        if self.tiles > 1:
            x = x.reshape(-1, self.tiles**2, x.shape[-1]).mean(dim=1)
        y: Tensor = self.head(x)
        return y
