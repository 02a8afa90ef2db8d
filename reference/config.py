"""The configuration of a training run, in one typed class; written beside every checkpoint."""

import dataclasses
from typing import Literal

from reference import models


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes."""

    variant: str = ""
    """Which row of the table of variants; empty: what start_from holds, else mixer_cifar10."""
    start_from: str = ""
    """Fine-tune this checkpoint (.npz), with a new head; empty: random initial parameters."""
    teacher: str = ""
    """Learn from this classifier's answers instead of the labels: a checkpoint (.npz) of any
    family, or an exported classifier (.onnx). It sees the same crops, mixed in the same way."""
    temperature: float = 1.0
    """Both networks' logits are divided by it before they are compared; with a teacher only."""
    image_size: int = 0
    """Pixels per side; 0: those of the variant or of start_from. A multiple of the patch size."""
    pooling: Literal["auto", "token", "mean"] = "auto"
    """What a new ViT classifies: its class token, or the mean of all others. auto: as the variant
    says."""
    positions: Literal["learnt", "sincos"] = "learnt"
    """A new ViT's positions: learnt, or fixed sines and cosines of the place."""
    pre_logits: bool = False
    """Give a new ViT a hidden layer with a tanh before its head."""
    epochs: int = 40
    """How often each training image is seen."""
    steps: int = 0
    """How long to train in steps; 0: as many as the epochs have."""
    batch_size: int = 0
    """Images per step, over all devices; 0: 128, or the largest power of two that fits a
    smaller set; on 3 devices, say, 3 times a power of two."""
    accumulate: int = 1
    """Compute a step's gradient in so many parts, one after the other, which takes less memory."""
    loss: Literal["softmax", "sigmoid"] = "softmax"
    """Cross-entropy of one answer, or of a yes or no for each class, summed over the classes."""
    head_bias: float = 0.0
    """What the biases of a new head start from; -6.9 is a probability of 1/1000 by sigmoid."""
    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"
    """muon: Muon for the matrices, AdamW for the rest. sgd: with momentum."""
    learning_rate: float = 2e-3
    """The peak, reached after the warm-up."""
    schedule: Literal["cosine", "linear", "staircase"] = "cosine"
    """How the learning rate falls after the warm-up: to zero; or, on the staircase, to a tenth at
    each of the stairs."""
    linear_end: float = 1e-5
    """The share of the peak that a linear schedule ends at."""
    stairs: tuple[float, ...] = ()
    """Where the staircase has its steps, as shares of the whole run."""
    warmup_epochs: float = 2.0
    """How long the learning rate rises linearly from zero."""
    warmup_steps: int | None = None
    """The same in steps, which then counts; None: as many as warmup_epochs have."""
    beta1: float = 0.9
    """Adam's decay of the mean of the gradients."""
    beta2: float = 0.99
    """Adam's decay of the mean of their squares; the papers' is 0.999."""
    momentum: float = 0.9
    """Of sgd."""
    moments: Literal["float32", "bfloat16"] = "float32"
    """What the mean of the gradients, or sgd's momentum, is kept in."""
    weight_decay: float = 0.1
    """On kernels only. A step takes this times the learning rate off them."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm. 0 turns it off."""
    ema_decay: float = 0.0
    """Keep a moving average of the parameters, and write and evaluate that. 0 turns it off."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What is computed in; auto: bfloat16 on TPU and GPU. Parameters stay float32."""
    dropout: float = 0.0
    """The share of features that a ViT drops while it trains."""
    stochastic_depth: float = 0.0
    """How often the last block of a Mixer or ViT is skipped while it trains; the first never is."""
    label_smoothing: float | None = None
    """The share of the target that is spread over all classes; None: 0.1 from scratch, else 0."""
    flip: bool = True
    """Mirror half of the images left to right."""
    crop_padding: int = 4
    """Random crop: shift by up to this many pixels. 0 turns it off."""
    min_crop_area: float = 1.0
    """Random resized crop: the least share of an image's area that is cut out. 1 turns it off."""
    resize: int = 0
    """Squash training images to so many pixels per side, cut image_size out at random. 0: off."""
    randaugment_layers: int = 0
    """RandAugment: how many random operations an image goes through. 0 turns it off."""
    randaugment_magnitude: float = 5.0
    """RandAugment: how strong they are; 10 is full, the papers go to 20."""
    mixup: float = 0.0
    """Mix images in pairs, with a share drawn from Beta(mixup, mixup). 0 turns it off."""
    cutmix: float = 0.0
    """Paste a box of one image into another, its area drawn from Beta(cutmix, cutmix). 0: off."""
    eval_resize: Literal["squash", "shortest"] = "squash"
    """How an image is resized where accuracy is measured: straight to the square, or by its
    shorter side."""
    eval_crop_fraction: float = 1.0
    """There, the share of the resized image's side that is cut out of its middle."""
    train_share: float = 1.0
    """Train on this share of each class's images, drawn by the seed, after what is held back."""
    validation: int | None = None
    """How many training images are held back to measure accuracy on; None: 2000, or a tenth of a
    smaller set."""
    keep: Literal["best", "last"] = "best"
    """Which parameters are written: those that were best on the held-back images, or the last."""
    memory_gib: float = 4.0
    """Images are kept decoded up to this size; a larger set is decoded as it is needed."""
    seed: int = 0
    """Decides the initial parameters, the order of the images and their augmentation."""
    hyperrule: bool = False
    """Let BiT-HyperRule choose steps, warm-up, stairs, mixup and sizes by the images there are."""
    eval_steps: int = 0
    """Measure accuracy and save after so many steps; 0: after every epoch."""
    save_minutes: float = 10.0
    """Save at least this often, and after every epoch. May change when a run goes on."""
    workers: int = 0
    """Threads that decode and augment images; 0: one per core. May change when a run goes on."""

    def __post_init__(self) -> None:
        """Refuse values that no run can use, before any file is read."""
        for fields, fits, wish in _RANGES:
            for field in fields:
                value = getattr(self, field)
                if value is not None and not fits(value):
                    raise ConfigError(f"{field}: {value} is {wish}")
        if self.image_size and not self.crop_padding < self.image_size:
            raise ConfigError(f"crop_padding: {self.crop_padding} is not in [0, image_size)")
        if self.resize and self.min_crop_area < 1:
            raise ConfigError("resize: has no meaning beside min_crop_area; set one of them")
        if self.resize and self.image_size and self.resize < self.image_size:
            raise ConfigError(f"resize: {self.resize} is below image_size {self.image_size}")
        if bool(self.stairs) != (self.schedule == "staircase") and not self.hyperrule:
            raise ConfigError(
                f"stairs: {self.stairs} do not go with the schedule {self.schedule!r}; a staircase "
                "needs some, as 0.3 0.6 0.9, and nothing else has any"
            )
        if self.temperature != 1 and not self.teacher:
            raise ConfigError("temperature: has no meaning without a teacher")
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"accumulate: {self.accumulate} parts do not divide batch_size {self.batch_size}"
            )
        if self.variant and not self.start_from:
            try:
                models.variant(self.variant)
            except models.UnknownVariantError as error:
                raise ConfigError(f"variant: {error}") from None

    @property
    def on_images(self) -> bool:
        """Whether images are augmented one by one, before they become part of a batch."""
        return self.randaugment_layers > 0 or self.min_crop_area < 1 or self.resize > 0


class ConfigError(ValueError):
    """The configuration cannot be run; the message names the field."""


# Fields, the condition for each, and the message if the condition does not hold.
_RANGES = (
    (
        ("validation",),
        lambda value: value > 0,
        "not above zero; accuracy is measured on what is held back: hold back 1 image, or leave it "
        "out for the default",
    ),
    (
        ("epochs", "learning_rate", "save_minutes", "accumulate", "temperature"),
        lambda value: value > 0,
        "not above zero",
    ),
    (
        (
            *("image_size", "warmup_epochs", "warmup_steps", "weight_decay", "crop_padding"),
            *("workers", "randaugment_layers", "randaugment_magnitude", "mixup", "cutmix"),
            *("memory_gib", "seed", "batch_size", "steps", "clip_norm", "resize"),
            "eval_steps",
        ),
        lambda value: value >= 0,
        "below zero",
    ),
    (
        (
            *("label_smoothing", "ema_decay", "dropout", "stochastic_depth"),
            *("beta1", "beta2", "momentum", "linear_end"),
        ),
        lambda value: 0 <= value < 1,
        "not in [0, 1)",
    ),
    (
        ("min_crop_area", "train_share", "eval_crop_fraction"),
        lambda value: 0 < value <= 1,
        "not in (0, 1]",
    ),
    (
        ("stairs",),
        lambda value: all(0 < share < 1 for share in value) and list(value) == sorted(value),
        "not rising shares between 0 and 1",
    ),
)
