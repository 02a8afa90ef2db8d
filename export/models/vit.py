"""The Vision Transformer in PyTorch (Dosovitskiy et al., 2020, arXiv 2010.11929), for inference.

In: float32 images [N, H, W, 3] normalised to [-1, 1]. Out: float32 logits [N, K]. The names of
modules and parameters are those of the published checkpoints.
"""

import torch
from torch import Tensor, nn

from contracts.published import CheckpointError
from contracts.variants import ViTSizes
from export.models.encoder import EncoderBlock, PositionEmbedding
from export.models.layers import Dense, LayerNorm, PatchEmbedding
from export.models.network import Network
from export.models.parameters import PublishedLayer


class Encoder(nn.Module):
    """Position embedding, the blocks, a last LayerNorm."""

    def __init__(self, sizes: ViTSizes, network: Network, image_size: int) -> None:
        super().__init__()
        width, gelu = sizes.hidden_size, network.flavour.gelu
        grids = network.image_size // sizes.patch_size, image_size // sizes.patch_size
        self.posembed_input = PositionEmbedding(width, int(sizes.class_token), *grids)
        self.blocks = [f"encoderblock_{index}" for index in range(sizes.num_layers)]
        for block in self.blocks:
            self.add_module(block, EncoderBlock(width, sizes.num_heads, sizes.mlp_dim, gelu))
        self.encoder_norm = LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.posembed_input(x)
        for block in self.blocks:
            x = self.get_submodule(block)(x)
        y: Tensor = self.encoder_norm(x)
        return y


class VisionTransformer(PublishedLayer):
    """Patch embedding, the encoder, the class token or the mean of all tokens, head."""

    def __init__(self, sizes: ViTSizes, network: Network, image_size: int) -> None:
        super().__init__()
        patch, width = sizes.patch_size, sizes.hidden_size
        if image_size % patch:
            near = max(patch, round(image_size / patch) * patch)
            raise CheckpointError(
                f"image size {image_size}: this ViT needs a multiple of {patch}, as {near}"
            )
        self.embedding = PatchEmbedding(patch, width)
        self.cls = nn.Parameter(torch.empty(1, 1, width)) if sizes.class_token else None
        self.Transformer = Encoder(sizes, network, image_size)
        represented = sizes.representation_size or width
        self.pre_logits = Dense(width, represented) if sizes.representation_size else None
        self.head = Dense(represented, network.num_classes)

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
