"""Big Transfer's ResNet-v2 in PyTorch (Kolesnikov et al., 2019, arXiv 1912.11370), for inference.

In: float32 images [N, H, W, 3] normalised to [-1, 1]. Out: float32 logits [N, K]. The names of
modules and parameters are those of the published checkpoints. Weight standardisation is folded
into the kernels when they are loaded, which leaves plain convolutions.
"""

from torch import Tensor, nn
from torch.nn import functional

from contracts.published import BIT_ROOT_WIDTH, CheckpointError
from contracts.variants import BiTSizes
from export.models.convolution import GroupNormReLU, Scope, StandardizedConv, Step
from export.models.layers import ReshapedDense
from export.models.network import Network


class Unit(nn.Module):
    """A bottleneck: normalisation before each convolution, no operation after the addition."""

    def __init__(self, inputs: int, middle: int, stride: int, first: bool, epsilon: float) -> None:
        super().__init__()
        outputs = 4 * middle
        proj = StandardizedConv(inputs, outputs, 1, stride, epsilon) if first else None
        self.a = Step(StandardizedConv(inputs, middle, 1, 1, epsilon), proj)
        self.b = Step(StandardizedConv(middle, middle, 3, stride, epsilon))
        self.c = Step(StandardizedConv(middle, outputs, 1, 1, epsilon))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a.group_norm(x)
        skip = x if self.a.proj is None else self.a.proj(y)  # the input of the convolution, too
        y = self.b.group_norm(self.a(y))
        y = self.c.group_norm(self.b(y))
        z: Tensor = skip + self.c(y)
        return z


class Head(nn.Module):
    """The classifier: published as a 1×1 convolution, which equals a dense layer after a mean."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv2d = ReshapedDense((1, 1, channels, num_classes), (num_classes,))


class ResNet(nn.Module):
    """Root convolution and max-pool, blocks of units, GroupNorm, mean, head."""

    def __init__(self, sizes: BiTSizes, network: Network) -> None:
        super().__init__()
        epsilon = network.flavour.standardization_epsilon
        middle = channels = round(BIT_ROOT_WIDTH * sizes.width_factor)
        self.root_block = Scope(StandardizedConv(3, channels, 7, 2, epsilon))
        self.blocks = [f"block{number}" for number in range(1, len(sizes.block_units) + 1)]
        for block, units in zip(self.blocks, sizes.block_units, strict=True):
            stride = 1 if block == "block1" else 2
            scope = nn.Sequential()
            for unit in range(units):
                first = unit == 0
                layer = Unit(channels, middle, stride if first else 1, first, epsilon)
                scope.add_module(f"unit{unit + 1:02d}", layer)
                channels = 4 * middle
            self.add_module(block, scope)
            middle *= 2
        self.group_norm = GroupNormReLU(channels)
        self.head = Head(channels, network.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.root_block(images.permute(0, 3, 1, 2))
        # The border is zeros, not the -inf of max_pool2d: the root's output may be negative.
        x = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), kernel_size=3, stride=2)
        for block in self.blocks:
            x = self.get_submodule(block)(x)
        y: Tensor = self.head.conv2d(self.group_norm(x).mean(dim=(2, 3)))
        return y


class BiT(nn.Module):
    """The network, in the scope of the published names."""

    def __init__(self, sizes: BiTSizes, network: Network, image_size: int) -> None:
        super().__init__()
        if image_size < 8:  # below 8 a group may be a single value, which cannot be normalised
            raise CheckpointError(f"image size {image_size}: a BiT needs at least 8 pixels")
        self.resnet = ResNet(sizes, network)

    def forward(self, images: Tensor) -> Tensor:
        y: Tensor = self.resnet(images)
        return y
