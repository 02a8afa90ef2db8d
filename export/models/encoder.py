"""Parts of the ViT's encoder; attention has the form that inference engines recognise and fuse."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.npz import Array
from contracts.published import Shape
from contracts.variants import ViTSizes
from export.models.layers import LayerNorm, MlpBlock, ReshapedDense
from export.models.network import Flavour, Grid
from export.models.parameters import PublishedLayer


class Attention(nn.Module):
    """Self-attention: tokens [N, S, width] -> [N, S, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        split = (heads, self.head_width)
        self.query = ReshapedDense((width, *split), split)
        self.key = ReshapedDense((width, *split), split)
        self.value = ReshapedDense((width, *split), split)
        self.out = ReshapedDense((*split, width), (width,))

    def forward(self, x: Tensor) -> Tensor:
        per_head = (-1, x.shape[1], self.heads, self.head_width)
        # Q is scaled before the product: TensorRT fuses this form, and FP16 stays in range.
        q = (self.query(x) * self.head_width**-0.5).reshape(per_head).permute(0, 2, 1, 3)
        k = self.key(x).reshape(per_head).permute(0, 2, 3, 1)
        v = self.value(x).reshape(per_head).permute(0, 2, 1, 3)
        weights = functional.softmax(torch.matmul(q, k), dim=-1)
        y = torch.matmul(weights, v).permute(0, 2, 1, 3)
        z: Tensor = self.out(y.reshape(-1, x.shape[1], self.heads * self.head_width))
        return z


class EncoderBlock(nn.Module):
    """Self-attention, then an MLP, each behind a LayerNorm and a skip connection."""

    def __init__(self, sizes: ViTSizes, flavour: Flavour) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.LayerNorm_0 = LayerNorm(width, flavour.layer_norm_epsilon)
        self.MultiHeadDotProductAttention_1 = Attention(width, sizes.num_heads)
        self.LayerNorm_2 = LayerNorm(width, flavour.layer_norm_epsilon)
        self.MlpBlock_3 = MlpBlock(width, sizes.mlp_dim, flavour.gelu)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.MultiHeadDotProductAttention_1(self.LayerNorm_0(x))
        y: Tensor = x + self.MlpBlock_3(self.LayerNorm_2(x))
        return y


class PositionEmbedding(PublishedLayer):
    """Adds a learned vector to each token; loading resizes the grid of vectors to the image."""

    def __init__(self, width: int, extra: int, published_grid: int, grid: int, way: Grid) -> None:
        super().__init__()
        self.extra, self.published_grid, self.grid, self.way = extra, published_grid, grid, way
        self.pos_embedding = nn.Parameter(torch.empty(1, extra + grid * grid, width))

    def published_shapes(self) -> dict[str, Shape]:
        return {"pos_embedding": (1, self.extra + self.published_grid**2, self.width)}

    @property
    def width(self) -> int:
        return self.pos_embedding.shape[-1]

    def from_published(self, name: str, array: Array) -> Array:
        del name  # it has only one
        if self.grid == self.published_grid:
            return array
        old = self.published_grid
        positions = torch.from_numpy(array[0, self.extra :].reshape(1, old, old, -1)).double()
        # In the order of `Grid`. align_corners true: the corner points of both grids coincide;
        # false: the points are centres of pixels.
        ways: dict[Grid, dict[str, Any]] = {
            "corners": {"mode": "bilinear", "align_corners": True},
            "bicubic": {"mode": "bicubic", "align_corners": False},
            "smooth": {"mode": "bicubic", "align_corners": False, "antialias": True},
        }
        size = (self.grid, self.grid)
        resized = functional.interpolate(positions.permute(0, 3, 1, 2), size, **ways[self.way])
        grid: Array = resized.permute(0, 2, 3, 1).reshape(1, -1, self.width).float().numpy()
        return np.concatenate([array[:, : self.extra], grid], axis=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pos_embedding
