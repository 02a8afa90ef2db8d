"""The published recipes, as configurations of which every number can be overridden.

In: the name of a recipe. Out: a `TrainConfig`. Sources: big_vision at 0127fb6 (bv), the papers, and
big_transfer at 140de6e. These do not multiply their `wd` by the peak rate, so `weight_decay` is
their `wd` divided by `learning_rate`.
"""

import dataclasses

from reference.config import TrainConfig

SMALL_AREA = 96 * 96  # pixels: for smaller images BiT-HyperRule takes the small sizes
# BiT-HyperRule's schedules: the number of training images below which a row holds, then the steps
# of the warm-up's end, of three drops, and of the end.
_HYPERRULE = (
    (20_000, (100, 200, 300, 400, 500)),
    (500_000, (500, 3000, 6000, 9000, 10_000)),
    (None, (500, 6000, 12_000, 18_000, 20_000)),
)
MIXUP_FROM = 20_000  # images from which BiT-HyperRule uses mixup


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A configuration and where it comes from."""

    config: TrainConfig
    source: str


_IMAGENET = TrainConfig(
    batch_size=4096,
    epochs=300,
    learning_rate=1e-3,
    warmup_steps=10_000,
    beta2=0.999,
    weight_decay=0.1,
    label_smoothing=0.0,
    crop_padding=0,
    min_crop_area=0.05,
    eval_resize="shortest",
    eval_crop_fraction=0.875,  # 224 of 256
    validation=12_812,  # the last hundredth of ImageNet-1k's training images
    keep="last",
)
_MIXER = dataclasses.replace(
    _IMAGENET,
    variant="mixer_b16",
    loss="sigmoid",
    schedule="linear",
    stochastic_depth=0.1,
    randaugment_layers=2,
)
_TRANSFER = TrainConfig(
    batch_size=512,
    optimizer="sgd",
    learning_rate=0.01,
    weight_decay=0.0,
    label_smoothing=0.0,
    crop_padding=0,
)

_CIFAR = TrainConfig(
    variant="mixer_cifar10",
    epochs=220,
    batch_size=128,
    optimizer="muon",
    learning_rate=5e-3,
    warmup_epochs=1.0,
    cutmix=0.5,
    randaugment_layers=1,
)

RECIPES: dict[str, Recipe] = {
    "mixer-i1k": Recipe(
        dataclasses.replace(
            _MIXER,
            head_bias=-6.9,
            randaugment_magnitude=15.0,
            mixup=0.5,
        ),
        "bv configs/mlp_mixer_i1k.py; arXiv 2105.01601, appendix B",
    ),
    "mixer-i21k": Recipe(
        dataclasses.replace(
            _MIXER,
            head_bias=-10.0,
            randaugment_magnitude=10.0,
            mixup=0.2,
            validation=51_200,
        ),
        "arXiv 2105.01601, appendix B, for B (L: RandAugment 20, mixup 0.5)",
    ),
    "vit-i1k": Recipe(
        dataclasses.replace(
            _IMAGENET,
            variant="vit_s16",
            epochs=90,
            batch_size=1024,
            moments="bfloat16",
            pooling="mean",
            positions="sincos",
            pre_logits=True,
            randaugment_layers=2,
            randaugment_magnitude=10.0,
            mixup=0.2,
        ),
        "bv configs/vit_s16_i1k.py",
    ),
    "augreg": Recipe(
        dataclasses.replace(
            _IMAGENET,
            variant="vit_b16",
            loss="sigmoid",
            head_bias=-6.9,
            moments="bfloat16",
            pre_logits=True,
            randaugment_layers=2,
            randaugment_magnitude=15.0,
            mixup=0.5,
        ),
        "bv configs/vit_i1k.py (arXiv 2106.10270), medium2: S/16, B/32, B/16 and L/16",
    ),
    "bit-i1k": Recipe(
        dataclasses.replace(
            _IMAGENET,
            variant="bit_r50x1",
            epochs=90,
            optimizer="sgd",
            moments="bfloat16",
            learning_rate=1.6,
            warmup_steps=1000,
            weight_decay=1e-3,
        ),
        "bv configs/bit_i1k.py, with the paper's network (bit_paper)",
    ),
    "bit-hyperrule": Recipe(
        dataclasses.replace(
            _TRANSFER, learning_rate=0.003, clip_norm=0.0, schedule="staircase", hyperrule=True
        ),
        "big_transfer bit_hyperrule.py (arXiv 1912.11370)",
    ),
    "transfer": Recipe(
        dataclasses.replace(
            _TRANSFER,
            steps=10_000,
            warmup_steps=500,
            moments="bfloat16",
            min_crop_area=0.05,
            eval_resize="shortest",
            eval_crop_fraction=0.857,  # 384 of 448
        ),
        "bv configs/transfer.py, for CIFAR; pets and flowers: 500 steps, 100 of warm-up",
    ),
    "cifar": Recipe(_CIFAR, "this project's, of the shipped mixer_cifar10 with more epochs"),
    "cifar-gpu": Recipe(
        # Only augmentations that run on the device: the device would wait for RandAugment, which
        # runs on the host.
        dataclasses.replace(
            _CIFAR,
            epochs=400,
            batch_size=512,
            learning_rate=1e-2,
            warmup_epochs=5.0,
            randaugment_layers=0,
            mixup=0.2,
            eval_steps=930,  # ten epochs
        ),
        "this project's, for some minutes of one GPU",
    ),
}


def by_hyperrule(config: TrainConfig, images: int, area: int) -> TrainConfig:
    """BiT-HyperRule's choice for `images` training images of about `area` pixels.

    Fields that are set already do not change.
    """
    if not config.hyperrule:
        return config
    resize, crop = (160, 128) if area < SMALL_AREA else (512, 480)
    warmup, *drops, end = next(
        steps for limit, steps in _HYPERRULE if limit is None or images < limit
    )
    steps = config.steps or end
    size = config.image_size or crop
    mixup = 0.1 if images >= MIXUP_FROM else 0.0
    return dataclasses.replace(
        config,
        steps=steps,
        warmup_steps=warmup * steps // end if config.warmup_steps is None else config.warmup_steps,
        stairs=config.stairs or tuple(drop / end for drop in drops),
        image_size=size,
        resize=config.resize or size * resize // crop,
        mixup=config.mixup or mixup,
    )
