"""What a training run computes, in one typed place; written beside every checkpoint."""

import dataclasses
from typing import Any, Literal

from reference import models

DEFAULT_VARIANT = "mixer_cifar10"
# Fields that may change when a run goes on: they decide when and how fast, never what is computed.
FREE = ("save_minutes", "workers")
# Fields that a run finds out where they are left open ("", 0, "auto", None).
FOUND_OUT = ("variant", "image_size", "precision", "batch_size", "validation")
BATCH_SIZE, VALIDATION = 128, 2000  # where they are left open, and the set is not too small


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes."""

    variant: str = ""
    """Which row of the table of variants; empty: what start_from holds, else mixer_cifar10."""
    start_from: str = ""
    """Fine-tune this checkpoint (.npz), with a new head; empty: random initial parameters."""
    image_size: int = 0
    """Pixels per side; 0: those of the variant or of start_from. A multiple of the patch size."""
    epochs: int = 40
    """How often each training image is seen."""
    batch_size: int = 0
    """Images per step, over all devices; 0: 128, or the largest power of two that fits a
    smaller set; on 3 devices, say, 3 times a power of two."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: Muon for the matrices, AdamW for the rest. Learns more from each image."""
    learning_rate: float = 2e-3
    """The peak, reached after the warm-up; a cosine takes it to zero from there."""
    warmup_epochs: float = 2.0
    """How long the learning rate rises linearly from zero."""
    weight_decay: float = 0.1
    """The optimiser's, on kernels only."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm."""
    ema_decay: float = 0.0
    """Keep a moving average of the parameters, and write and evaluate that. 0 turns it off."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What is computed in; auto: bfloat16 on TPU and GPU. Parameters stay float32."""
    label_smoothing: float = 0.1
    """The share of the target that is spread over all classes."""
    crop_padding: int = 4
    """Random crop: shift by up to this many pixels. 0 turns it off."""
    min_crop_area: float = 1.0
    """Random resized crop: the least share of an image's area that is cut out. 1 turns it off."""
    randaugment_layers: int = 0
    """RandAugment: how many random operations an image goes through. 0 turns it off."""
    randaugment_magnitude: float = 5.0
    """RandAugment: how strong they are, 0 to 10."""
    mixup: float = 0.0
    """Mix images in pairs, with a share drawn from Beta(mixup, mixup). 0 turns it off."""
    cutmix: float = 0.0
    """Paste a box of one image into another, its area drawn from Beta(cutmix, cutmix). 0: off."""
    validation: int | None = None
    """How many training images are held back to measure accuracy on; None: 2000, or a tenth of a
    smaller set."""
    memory_gib: float = 4.0
    """Images are kept decoded up to this size; a larger set is decoded as it is needed."""
    seed: int = 0
    """Decides the initial parameters, the order of the images and their augmentation."""
    save_minutes: float = 10.0
    """Save at least this often, and after every epoch. May change when a run goes on."""
    workers: int = 0
    """Threads that decode and augment images; 0: one per core. May change when a run goes on."""

    def __post_init__(self) -> None:
        """Refuse what no run can mean, before anything is read."""
        for field in ("epochs", "learning_rate", "clip_norm", "save_minutes"):
            if not getattr(self, field) > 0:
                raise ConfigError(f"{field}: {getattr(self, field)} is not above zero")
        if self.validation is not None and not self.validation > 0:
            raise ConfigError(
                f"validation: {self.validation} is not above zero; accuracy is measured on what "
                "is held back: hold back 1 image, or leave it out for the default"
            )
        not_below = ("image_size", "warmup_epochs", "weight_decay", "crop_padding", "workers")
        augment = ("randaugment_layers", "mixup", "cutmix", "memory_gib", "seed", "batch_size")
        for field in (*not_below, *augment):
            if not getattr(self, field) >= 0:
                raise ConfigError(f"{field}: {getattr(self, field)} is below zero")
        for field in ("label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, field) < 1:
                raise ConfigError(f"{field}: {getattr(self, field)} is not in [0, 1)")
        if not 0 < self.min_crop_area <= 1:
            raise ConfigError(f"min_crop_area: {self.min_crop_area} is not in (0, 1]")
        if not 0 <= self.randaugment_magnitude <= 10:
            raise ConfigError(
                f"randaugment_magnitude: {self.randaugment_magnitude} is not in [0, 10]"
            )
        if self.image_size and not self.crop_padding < self.image_size:
            raise ConfigError(f"crop_padding: {self.crop_padding} is not in [0, image_size)")
        if self.variant and not self.start_from:
            try:
                models.variant(self.variant)
            except models.UnknownVariantError as error:
                raise ConfigError(f"variant: {error}") from None

    @property
    def on_images(self) -> bool:
        """Whether images are augmented one by one, before they come into a batch."""
        return self.randaugment_layers > 0 or self.min_crop_area < 1


class ConfigError(ValueError):
    """The configuration cannot be run; the message names the field."""


def sizes(config: TrainConfig, images: int, devices: int) -> tuple[int, int]:
    """How many of so many images are held back, and how many make a batch on so many devices.

    Raises ConfigError, which names all that cannot be.
    """
    most = images - devices  # each device takes one image a step, or more
    if most < 1:
        raise ConfigError(
            f"data: {images} training images are too few; there must be at least "
            f"{devices + 1}: one for each device, and one to hold back"
        )
    tenth = max(1, min(VALIDATION, images // 10, most))
    wrong = []
    held_back = tenth if config.validation is None else config.validation
    if held_back > most:
        wrong.append(
            f"validation: cannot hold back {held_back} of {images} images; choose at most "
            f"{most}, or leave it out for {tenth}"
        )
        held_back = tenth  # which the batch is held against
    rest = images - held_back
    fits = devices
    while 2 * fits <= min(BATCH_SIZE, rest):
        fits *= 2
    batch_size = config.batch_size or fits
    if batch_size % devices:
        wrong.append(
            f"batch_size: {batch_size} cannot be divided among {devices} devices; choose a "
            f"multiple, or leave it out for {fits}"
        )
    if batch_size > rest:
        wrong.append(
            f"batch_size: {batch_size} is more than {rest} images, which are left to train on; "
            f"choose at most {rest - rest % devices}, or leave it out for {fits}"
        )
    if wrong:
        raise ConfigError("; ".join(wrong))
    return held_back, batch_size


def go_on(config: TrainConfig, before: dict[str, Any]) -> TrainConfig:
    """The configuration of a run that goes on: what it began with, `before`.

    Raises ConfigError for a field that is set to something else. Fields that were left to be
    found out are taken from the record.
    """
    # What a record of before these fields existed means.
    old = dataclasses.asdict(TrainConfig(precision="float32")) | before
    for field, value in dataclasses.asdict(config).items():
        left_open = field in FOUND_OUT and value in ("", 0, "auto", None)
        if old[field] != value and not left_open and field not in FREE:
            raise ConfigError(
                f"{field}: this run was started with {old[field]!r}, not {value!r}; "
                "resume with the same configuration, or start anew with another --out"
            )
    left = {field: old[field] for field in FOUND_OUT}
    return dataclasses.replace(config, **left)
