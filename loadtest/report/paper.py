"""The paper's published figures, which the report shows beside the measured ones.

Tolstikhin et al., 2021 (arXiv 2105.01601), tables 2 and 3: images per second and TPUv3 core at the
best batch size, and top-1 accuracy on ImageNet after pre-training on JFT-300M or on ImageNet-21k.
"""

import dataclasses

SOURCE = "arXiv 2105.01601, tables 2 and 3"
JFT, I21K = "JFT-300M", "ImageNet-21k"


@dataclasses.dataclass(frozen=True)
class Published:
    """One network at one image size."""

    name: str  # as printed in the paper
    variant: str
    image_size: int  # pixels per side
    images_per_second: float  # per TPUv3 core
    top1: float | None = None  # per cent
    pretraining: str = ""


# Where the paper has several accuracies, the row has that of JFT-300M with the longest training.
# ViT-B/16 has the one of ImageNet-21k, since the paper has no other; so has Mixer-B/16, to compare.
PUBLISHED = (
    Published("Mixer-S/32", "mixer_s32", 224, 11489, 68.70, JFT),
    Published("Mixer-B/32", "mixer_b32", 224, 4208, 75.53, JFT),
    Published("Mixer-S/16", "mixer_s16", 224, 3994, 73.83, JFT),
    Published("BiT-R50x1", "bit_r50x1", 224, 2159, 73.69, JFT),
    Published("Mixer-B/16", "mixer_b16", 224, 1384, 80.00, JFT),
    Published("Mixer-B/16", "mixer_b16", 224, 1384, 80.64, I21K),
    Published("Mixer-L/32", "mixer_l32", 224, 1314, 80.67, JFT),
    Published("BiT-R152x1", "bit_r152x1", 224, 932, 79.12, JFT),
    Published("BiT-R50x2", "bit_r50x2", 224, 890, 78.92, JFT),
    Published("ViT-B/16", "vit_b16", 224, 861, 84.59, I21K),
    Published("Mixer-L/16", "mixer_l16", 224, 419, 84.82, JFT),
    Published("BiT-R152x2", "bit_r152x2", 224, 356, 83.34, JFT),
    Published("ViT-L/16", "vit_l16", 224, 280, 85.63, JFT),
    Published("Mixer-H/14", "mixer_h14", 224, 194, 86.32, JFT),
    Published("BiT-R200x3", "bit_r200x3", 224, 141, 84.73, JFT),
    Published("Mixer-L/16@448", "mixer_l16", 448, 105, 86.78, JFT),
    Published("ViT-H/14", "vit_h14", 224, 87, 86.65, JFT),
    Published("Mixer-H/14@448", "mixer_h14", 448, 40, 87.94, JFT),
    Published("ViT-L/16@512", "vit_l16", 512, 32, 87.76, JFT),
    Published("BiT-R152x4", "bit_r152x4", 224, 26, 87.54, JFT),
    Published("ViT-H/14@518", "vit_h14", 518, 15, 88.55, JFT),
)


def throughput(variant: str, image_size: int) -> float | None:
    """The paper's images per second and TPUv3 core, where it has them."""
    for row in PUBLISHED:
        if (row.variant, row.image_size) == (variant, image_size):
            return row.images_per_second
    return None
