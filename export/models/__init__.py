"""The architectures that can be exported: one file each, variants as rows of its table."""

from export.models import mixer

Config = mixer.MixerConfig

FAMILIES: tuple[type[Config], ...] = (mixer.MixerConfig,)
VARIANTS: dict[str, Config] = {**mixer.VARIANTS}
