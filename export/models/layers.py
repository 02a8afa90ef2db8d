"""Layers that the architectures share, written for inference graphs.

Kernels are [in, out] as in the published files, so that a dense layer is one MatMul and one Add in
ONNX, and no kernel is transposed in PyTorch or in the graph.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.npz import Array
from contracts.published import Shape
from export.models.network import Gelu
from export.models.parameters import PublishedLayer


def gelu(x: Tensor, form: Gelu) -> Tensor:
    """GELU: "tanh" as in the published JAX code, "erf" as in timm, "quick" as in CLIP."""
    if form == "quick":
        return x * torch.sigmoid(1.702 * x)
    return functional.gelu(x, approximate="tanh" if form == "tanh" else "none")


class Dense(PublishedLayer):
    """x [..., inputs] -> x · kernel + bias [..., outputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x, self.kernel) + self.bias


class ReshapedDense(Dense):
    """A dense layer whose inputs or outputs are published as several axes, as [heads, width]."""

    def __init__(self, kernel: Shape, bias: Shape) -> None:
        outputs = math.prod(bias)
        super().__init__(math.prod(kernel) // outputs, outputs)
        self._published = {"kernel": kernel, "bias": bias}

    def published_shapes(self) -> dict[str, Shape]:
        return self._published


class LayerNorm(PublishedLayer):
    """Layer normalisation over the last axis."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.scale = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.scale.shape, self.scale, self.bias, self.epsilon)


class MlpBlock(nn.Module):
    """Two dense layers with a GELU between them, on the last axis."""

    def __init__(self, width: int, mlp_dim: int, gelu_form: Gelu) -> None:
        super().__init__()
        self.gelu_form: Gelu = gelu_form
        self.Dense_0 = Dense(width, mlp_dim)
        self.Dense_1 = Dense(mlp_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.Dense_1(gelu(self.Dense_0(x), self.gelu_form))
        return y


class TokenDense(PublishedLayer):
    """x [N, inputs, C] -> kernelᵀ · x + bias [N, outputs, C]: a dense layer on the token axis.

    The published layer acts on the transposed [N, C, S]. With the kernel on the left no
    transposition is needed at run time. So the kernel is [outputs, inputs] in this class.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs, 1))

    def published_shapes(self) -> dict[str, Shape]:
        outputs, inputs = self.kernel.shape
        return {"kernel": (inputs, outputs), "bias": (outputs,)}

    def from_published(self, name: str, array: Array) -> Array:
        return array.T if name == "kernel" else array[:, None]

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(self.kernel, x) + self.bias


class TokenMlpBlock(nn.Module):
    """Two dense layers with a GELU between them, on the token axis."""

    def __init__(self, tokens: int, mlp_dim: int, gelu_form: Gelu) -> None:
        super().__init__()
        self.gelu_form: Gelu = gelu_form
        self.Dense_0 = TokenDense(tokens, mlp_dim)
        self.Dense_1 = TokenDense(mlp_dim, tokens)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.Dense_1(gelu(self.Dense_0(x), self.gelu_form))
        return y


class PatchEmbedding(PublishedLayer):
    """Images [N, H, W, 3] -> tokens [N·K², S, width], row-major, each a projection of one patch.

    It is a convolution whose kernel size equals its stride, written as one transposition and one
    MatMul. With `tiles` = K > 1 the image is cut into K × K tiles, and each tile becomes an image
    of its own.
    """

    def __init__(self, patch_size: int, width: int, tiles: int = 1) -> None:
        super().__init__()
        self.patch_size, self.tiles = patch_size, tiles
        self.kernel = nn.Parameter(torch.empty(patch_size * patch_size * 3, width))
        self.bias = nn.Parameter(torch.empty(width))

    def published_shapes(self) -> dict[str, Shape]:
        width = self.bias.shape[0]
        return {"kernel": (self.patch_size, self.patch_size, 3, width), "bias": (width,)}

    def forward(self, images: Tensor) -> Tensor:
        size, tiles, patch = images.shape[1], self.tiles, self.patch_size
        grid = size // (tiles * patch)
        if tiles == 1:
            x = images.reshape(-1, grid, patch, grid, patch * 3).transpose(2, 3)
        else:
            x = images.reshape(-1, tiles, grid, patch, tiles, grid, patch * 3)
            x = x.permute(0, 1, 4, 2, 5, 3, 6)
        x = x.reshape(-1, grid * grid, patch * patch * 3)
        return torch.matmul(x, self.kernel) + self.bias
