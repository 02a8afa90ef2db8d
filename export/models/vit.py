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
    """Position embedding and the blocks; the caller applies the last LayerNorm when it pools."""

    def __init__(self, sizes: ViTSizes, network: Network, image_size: int) -> None:
        super().__init__()
        width, flavour = sizes.hidden_size, network.flavour
        grids = network.image_size // sizes.patch_size, image_size // sizes.patch_size
        prefix = prefix_tokens(sizes, network)
        self.posembed_input = PositionEmbedding(width, prefix, *grids, flavour.grid)
        self.norm_pre = LayerNorm(width, flavour.layer_norm_epsilon) if flavour.pre_norm else None
        self.blocks = [f"encoderblock_{index}" for index in range(sizes.num_layers)]
        for block in self.blocks:
            self.add_module(block, EncoderBlock(sizes, flavour))
        self.encoder_norm = LayerNorm(width, flavour.layer_norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        x = self.posembed_input(x)
        if self.norm_pre is not None:
            x = self.norm_pre(x)
        for block in self.blocks:
            x = self.get_submodule(block)(x)
        return x


class VisionTransformer(PublishedLayer):
    """Patch embedding, the encoder, the class token or the mean of all patches' tokens, head."""

    def __init__(self, sizes: ViTSizes, network: Network, image_size: int) -> None:
        super().__init__()
        patch, width = sizes.patch_size, sizes.hidden_size
        if image_size % patch:
            near = max(patch, round(image_size / patch) * patch)
            raise CheckpointError(
                f"image size {image_size}: this ViT needs a multiple of {patch}, as {near}"
            )
        flavour = network.flavour
        self.pool = flavour.pool or ("token" if sizes.class_token else "mean")
        self.norm_after_pooling = flavour.norm_after_pooling
        self.prefix = prefix_tokens(sizes, network)
        self.embedding = PatchEmbedding(patch, width)
        # The class token, followed by the registers of a ViT that has some.
        self.cls = nn.Parameter(torch.empty(1, self.prefix, width)) if self.prefix else None
        self.Transformer = Encoder(sizes, network, image_size)
        represented = sizes.representation_size or width
        self.pre_logits = Dense(width, represented) if sizes.representation_size else None
        self.head = Dense(represented, network.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embedding(images)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.Transformer(x)
        if not self.norm_after_pooling:
            x = self.Transformer.encoder_norm(x)
        x = x[:, 0] if self.pool == "token" else x[:, self.prefix :].mean(dim=1)
        if self.norm_after_pooling:
            x = self.Transformer.encoder_norm(x)
        if self.pre_logits is not None:
            x = torch.tanh(self.pre_logits(x))
        y: Tensor = self.head(x)
        return y


def prefix_tokens(sizes: ViTSizes, network: Network) -> int:
    """How many tokens come before the tokens of the patches."""
    prefix = network.flavour.prefix_tokens
    return int(sizes.class_token) if prefix is None else prefix
