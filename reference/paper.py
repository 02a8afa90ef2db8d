"""The measurements of the Mixer paper: images per second and TPUv3 core at the best batch size.

Tolstikhin et al., 2021 (arXiv 2105.01601), tables 2 and 3. A row per network and image size.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Measured:
    """One figure of the paper."""

    name: str  # as printed in the paper
    variant: str
    image_size: int  # pixels per side
    images_per_second: float  # per TPUv3 core


MEASURED = (
    Measured("Mixer-S/32", "mixer_s32", 224, 11489),
    Measured("Mixer-B/32", "mixer_b32", 224, 4208),
    Measured("Mixer-S/16", "mixer_s16", 224, 3994),
    Measured("BiT-R50x1", "bit_r50x1", 224, 2159),
    Measured("Mixer-B/16", "mixer_b16", 224, 1384),
    Measured("Mixer-L/32", "mixer_l32", 224, 1314),
    Measured("BiT-R152x1", "bit_r152x1", 224, 932),
    Measured("BiT-R50x2", "bit_r50x2", 224, 890),
    Measured("ViT-B/16", "vit_b16", 224, 861),
    Measured("Mixer-L/16", "mixer_l16", 224, 419),
    Measured("BiT-R152x2", "bit_r152x2", 224, 356),
    Measured("ViT-L/16", "vit_l16", 224, 280),
    Measured("Mixer-H/14", "mixer_h14", 224, 194),
    Measured("BiT-R200x3", "bit_r200x3", 224, 141),
    Measured("Mixer-L/16@448", "mixer_l16", 448, 105),
    Measured("ViT-H/14", "vit_h14", 224, 87),
    Measured("Mixer-H/14@448", "mixer_h14", 448, 40),
    Measured("ViT-L/16@512", "vit_l16", 512, 32),
    Measured("BiT-R152x4", "bit_r152x4", 224, 26),
    Measured("ViT-H/14@518", "vit_h14", 518, 15),
)


def measured(variant: str, image_size: int) -> float | None:
    """The paper's figure, where it has one."""
    for row in MEASURED:
        if (row.variant, row.image_size) == (variant, image_size):
            return row.images_per_second
    return None
