"""The architectures that can be exported: one file each, variants as rows of its table."""

from export.models.bit import VARIANTS as BIT_VARIANTS
from export.models.bit import BiTConfig
from export.models.mixer import VARIANTS as MIXER_VARIANTS
from export.models.mixer import MixerConfig
from export.models.vit import VARIANTS as VIT_VARIANTS
from export.models.vit import ViTConfig

__all__ = ["FAMILIES", "VARIANTS", "BiTConfig", "Config", "MixerConfig", "ViTConfig"]

Config = MixerConfig | ViTConfig | BiTConfig

FAMILIES: tuple[type[Config], ...] = (MixerConfig, ViTConfig, BiTConfig)
VARIANTS: dict[str, Config] = {**MIXER_VARIANTS, **VIT_VARIANTS, **BIT_VARIANTS}
