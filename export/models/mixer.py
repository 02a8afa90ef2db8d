"""The MLP-Mixer in PyTorch (Tolstikhin et al., 2021, arXiv 2105.01601), for inference.

In: float32 images [N, H, W, 3] normalised to [-1, 1]. Out: float32 logits [N, K]. The names of
modules and parameters are those of the published checkpoints.
"""

from torch import Tensor, nn

from contracts.published import CheckpointError
from contracts.variants import MixerSizes
from export.models.layers import (
    Dense,
    LayerNorm,
    MlpBlock,
    PatchEmbedding,
    TokenMlpBlock,
)
from export.models.network import Network


class MixerBlock(nn.Module):
    """Token mixing, then channel mixing, each behind a LayerNorm and a skip connection."""

    def __init__(self, sizes: MixerSizes, network: Network) -> None:
        super().__init__()
        tokens, gelu = (network.image_size // sizes.patch_size) ** 2, network.flavour.gelu
        epsilon = network.flavour.layer_norm_epsilon
        self.LayerNorm_0 = LayerNorm(sizes.hidden_dim, epsilon)
        self.token_mixing = TokenMlpBlock(tokens, sizes.tokens_mlp_dim, gelu)
        self.LayerNorm_1 = LayerNorm(sizes.hidden_dim, epsilon)
        self.channel_mixing = MlpBlock(sizes.hidden_dim, sizes.channels_mlp_dim, gelu)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token_mixing(self.LayerNorm_0(x))
        y: Tensor = x + self.channel_mixing(self.LayerNorm_1(x))
        return y


class MlpMixer(nn.Module):
    """Per-patch embedding, the Mixer blocks, global average pooling, head.

    At K times the resolution of the weights the paper (appendix C) makes the token-mixing MLP
    block-diagonal, with one copy per spatial tile. Then only the final mean combines tiles, so this
    class treats each tile as an image of its own until the mean. The logits are the same, token
    mixing has K² times fewer FLOPs than with the block-diagonal matrices, and the blocks need no
    permutation. (S/32 at 448 pixels in onnxruntime: 1.17 and 1.22 times less CPU time at batch 1
    and 8.)
    """

    def __init__(self, sizes: MixerSizes, network: Network, image_size: int) -> None:
        super().__init__()
        tiles, rest = divmod(image_size, network.image_size)
        if rest or tiles < 1:
            near = network.image_size * max(1, tiles)
            raise CheckpointError(
                f"image size {image_size}: these Mixer weights need a multiple of "
                f"{network.image_size}, for example {near} or {near + network.image_size}"
            )
        self.tiles = tiles
        self.stem = PatchEmbedding(sizes.patch_size, sizes.hidden_dim, tiles)
        self.blocks = [f"MixerBlock_{index}" for index in range(sizes.num_blocks)]
        for block in self.blocks:
            self.add_module(block, MixerBlock(sizes, network))
        self.pre_head_layer_norm = LayerNorm(sizes.hidden_dim, network.flavour.layer_norm_epsilon)
        self.head = Dense(sizes.hidden_dim, network.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = self.get_submodule(block)(x)
        x = self.pre_head_layer_norm(x).mean(dim=1)
        if self.tiles > 1:
            x = x.reshape(-1, self.tiles**2, x.shape[-1]).mean(dim=1)
        y: Tensor = self.head(x)
        return y
