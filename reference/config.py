"""What a training run computes, in one typed place; written beside every checkpoint."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes."""

    variant: str = "mixer_cifar10"
    """Which row of the table of variants."""
    image_size: int = 32
    """Pixels per side; a multiple of the variant's patch size."""
    epochs: int = 40
    """How often each training picture is seen."""
    batch_size: int = 128
    """Pictures per step."""
    learning_rate: float = 2e-3
    """The peak, reached after the warm-up; a cosine takes it to zero from there."""
    warmup_epochs: float = 2.0
    """How long the learning rate rises linearly from zero."""
    weight_decay: float = 0.1
    """AdamW's, on kernels only."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm."""
    label_smoothing: float = 0.1
    """The share of the target that is spread over all classes."""
    crop_padding: int = 4
    """Random crop: shift by up to this many pixels. 0 turns it off."""
    validation: int = 2000
    """How many training pictures are held back to measure accuracy on."""
    seed: int = 0
    """Decides the initial parameters, the order of the pictures and their augmentation."""

    def __post_init__(self) -> None:
        """Refuse what no run can mean, before anything is read."""
        for field in ("image_size", "epochs", "batch_size", "learning_rate", "validation"):
            if not getattr(self, field) > 0:
                raise ConfigError(f"{field}: {getattr(self, field)} is not above zero")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing: {self.label_smoothing} is not in [0, 1)")
        if not 0 <= self.crop_padding < self.image_size:
            raise ConfigError(f"crop_padding: {self.crop_padding} is not in [0, image_size)")


class ConfigError(ValueError):
    """The configuration cannot be run; the message names the field."""
