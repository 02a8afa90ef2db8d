"""BiT's layers: standardised convolutions, which become plain ones when loaded, and GroupNorm."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.npz import Array
from contracts.published import BIT_GROUPS, Shape
from export.models.parameters import PublishedLayer


class StandardizedConv(PublishedLayer):
    """A convolution with fixed symmetric padding and no bias, published HWIO."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, epsilon: float) -> None:
        super().__init__()
        self.stride, self.padding, self.epsilon = stride, size // 2, epsilon
        self.kernel = nn.Parameter(torch.empty(outputs, inputs, size, size))

    def published_shapes(self) -> dict[str, Shape]:
        outputs, inputs, height, width = self.kernel.shape
        return {"kernel": (height, width, inputs, outputs)}

    def from_published(self, name: str, array: Array) -> Array:
        """Standardise each output channel (biased variance), as the published forward pass does."""
        del name  # it has only one
        kernel = torch.from_numpy(array).permute(3, 2, 0, 1).contiguous()
        variance, mean = torch.var_mean(kernel, (1, 2, 3), correction=0, keepdim=True)
        standardized: Array = kernel.sub_(mean).div_((variance + self.epsilon).sqrt()).numpy()
        return standardized

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.kernel, stride=self.stride, padding=self.padding)


class GroupNormReLU(PublishedLayer):
    """Group normalisation, then ReLU: images [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        # In this form the layer is exported as InstanceNormalization with constant shapes, for
        # which onnxruntime and TensorRT both have kernels; `group_norm` would compute its shapes in
        # the graph. Scale and shift as a BatchNormalization or as a depthwise convolution changed
        # the CPU time in onnxruntime by at most 7 % (R50x1, batch 1 and 8), in both directions.
        _, channels, height, width = x.shape
        y = x.reshape(-1, BIT_GROUPS, channels // BIT_GROUPS * height * width)
        y = functional.instance_norm(y, eps=1e-5).reshape(-1, channels, height, width)
        return functional.relu(y * self.gamma[:, None, None] + self.beta[:, None, None])


class Scope(nn.Module):
    """A convolution in a scope of its own."""

    def __init__(self, conv: StandardizedConv) -> None:
        super().__init__()
        self.standardized_conv2d = conv

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.standardized_conv2d(x)
        return y


class Step(Scope):
    """A convolution with the normalisation that comes before it."""

    def __init__(self, conv: StandardizedConv, proj: StandardizedConv | None = None) -> None:
        super().__init__(conv)
        self.group_norm = GroupNormReLU(conv.kernel.shape[1])
        self.proj = None if proj is None else Scope(proj)
