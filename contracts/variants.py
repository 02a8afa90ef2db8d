"""Every variant of Mixer, ViT and BiT by name, as a table of sizes.

In: a name, or sizes that were read off a checkpoint. Out: the row of the table. The sizes are those
of the papers; the rows that end in `_testing` and `_cifar10` are this project's own.
"""

import dataclasses
from typing import ClassVar


@dataclasses.dataclass(frozen=True)
class MixerSizes:
    """Sizes of one Mixer, in the paper's notation (arXiv 2105.01601, table 1)."""

    patch_size: int  # P: pixels per side of a patch
    hidden_dim: int  # C: channels of a token
    num_blocks: int
    tokens_mlp_dim: int  # D_S: hidden width of the token-mixing MLP
    channels_mlp_dim: int  # D_C: hidden width of the channel-mixing MLP
    family: ClassVar[str] = "mixer"


@dataclasses.dataclass(frozen=True)
class ViTSizes:
    """Sizes of one ViT, in the paper's notation (arXiv 2010.11929, table 1)."""

    patch_size: int  # pixels per side of a patch
    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    class_token: bool = True  # without one, the mean over all tokens is classified
    representation_size: int | None = None  # of `pre_logits`, in original ImageNet-21k files
    family: ClassVar[str] = "vit"


@dataclasses.dataclass(frozen=True)
class BiTSizes:
    """Sizes of one BiT: ResNet-50, 101, 152 or 200, each width times `width_factor`."""

    block_units: tuple[int, ...]
    width_factor: float
    family: ClassVar[str] = "bit"


Sizes = MixerSizes | ViTSizes | BiTSizes


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the table: a network, and the images and classes that it is meant for."""

    sizes: Sizes
    image_size: int = 224  # pixels per side
    num_classes: int = 1000


VARIANTS: dict[str, Variant] = {
    "mixer_s32": Variant(MixerSizes(32, 512, 8, 256, 2048)),
    "mixer_s16": Variant(MixerSizes(16, 512, 8, 256, 2048)),
    "mixer_b32": Variant(MixerSizes(32, 768, 12, 384, 3072)),
    "mixer_b16": Variant(MixerSizes(16, 768, 12, 384, 3072)),
    "mixer_l32": Variant(MixerSizes(32, 1024, 24, 512, 4096)),
    "mixer_l16": Variant(MixerSizes(16, 1024, 24, 512, 4096)),
    "mixer_h14": Variant(MixerSizes(14, 1280, 32, 640, 5120)),
    # Small enough to be trained on CIFAR-10 by a laptop's CPU, and to be shipped.
    "mixer_cifar10": Variant(MixerSizes(4, 128, 8, 64, 256), 32, 10),
    # The three `_nano` rows cost alike, 14 to 15 MFLOP an image: to compare the families on very
    # little compute.
    "mixer_nano": Variant(MixerSizes(4, 64, 5, 32, 128), 32, 10),
    # The three `_testing` rows are for tests that must take seconds.
    "mixer_testing": Variant(MixerSizes(8, 16, 2, 8, 32), 32, 10),
    "vit_ti16": Variant(ViTSizes(16, 192, 12, 3, 768)),
    "vit_s32": Variant(ViTSizes(32, 384, 12, 6, 1536)),
    "vit_s16": Variant(ViTSizes(16, 384, 12, 6, 1536)),
    "vit_b32": Variant(ViTSizes(32, 768, 12, 12, 3072)),
    "vit_b16": Variant(ViTSizes(16, 768, 12, 12, 3072)),
    "vit_l32": Variant(ViTSizes(32, 1024, 24, 16, 4096)),
    "vit_l16": Variant(ViTSizes(16, 1024, 24, 16, 4096)),
    "vit_h14": Variant(ViTSizes(14, 1280, 32, 16, 5120)),
    # Costs as much as the Mixer of this name, as bit_cifar10 does.
    "vit_cifar10": Variant(ViTSizes(4, 96, 8, 3, 192, class_token=False), 32, 10),
    "vit_nano": Variant(ViTSizes(4, 48, 4, 3, 96, class_token=False), 32, 10),
    "vit_testing": Variant(ViTSizes(8, 24, 2, 3, 48), 32, 10),
    "bit_r50x1": Variant(BiTSizes((3, 4, 6, 3), 1)),
    "bit_r50x2": Variant(BiTSizes((3, 4, 6, 3), 2)),
    "bit_r50x3": Variant(BiTSizes((3, 4, 6, 3), 3)),
    "bit_r101x1": Variant(BiTSizes((3, 4, 23, 3), 1)),
    "bit_r101x3": Variant(BiTSizes((3, 4, 23, 3), 3)),
    "bit_r152x1": Variant(BiTSizes((3, 8, 36, 3), 1)),
    "bit_r152x2": Variant(BiTSizes((3, 8, 36, 3), 2)),
    "bit_r152x4": Variant(BiTSizes((3, 8, 36, 3), 4)),
    "bit_r200x3": Variant(BiTSizes((3, 24, 36, 3), 3)),
    "bit_cifar10": Variant(BiTSizes((3, 3, 1), 1), 32, 10),
    "bit_nano": Variant(BiTSizes((1, 1, 1), 0.5), 32, 10),
    "bit_testing": Variant(BiTSizes((1, 1), 0.5), 32, 10),
}


def variant_name(sizes: Sizes) -> str | None:
    """The name of the row with these sizes; None where there is none.

    A ViT is recognised whether it has a class token and `pre_logits` or not.
    """
    wanted = _without_head(sizes)
    return next(
        (name for name, row in VARIANTS.items() if _without_head(row.sizes) == wanted), None
    )


def _without_head(sizes: Sizes) -> Sizes:
    if isinstance(sizes, ViTSizes):
        return dataclasses.replace(sizes, class_token=True, representation_size=None)
    return sizes
