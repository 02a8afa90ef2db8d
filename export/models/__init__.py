"""The architectures that can be exported: one file each."""

from torch import nn

from contracts.variants import BiTSizes, MixerSizes, ViTSizes
from export.models.bit import BiT
from export.models.mixer import MlpMixer
from export.models.network import Flavour, Gelu, Grid, Network, network_of
from export.models.vit import VisionTransformer

__all__ = ["Flavour", "Gelu", "Grid", "Network", "build", "network_of"]


def build(network: Network, image_size: int) -> nn.Module:
    """The module, without values, for images of `image_size` pixels per side.

    It takes float32 images [N, H, W, 3] in [-1, 1] and gives float32 logits [N, K]. Raises
    CheckpointError where the weights cannot be used at that size.
    """
    match network.sizes:
        case MixerSizes() as sizes:
            return MlpMixer(sizes, network, image_size)
        case ViTSizes() as sizes:
            return VisionTransformer(sizes, network, image_size)
        case BiTSizes() as sizes:
            return BiT(sizes, network, image_size)
