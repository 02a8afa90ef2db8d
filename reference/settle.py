"""Values that a configuration leaves open: set from the variant, the data, the devices, a record.

In: a `TrainConfig`, and those of the four sources that exist. Out: the same configuration with all
values set.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from contracts.counting import counted
from contracts.variants import VARIANTS
from reference import models
from reference.config import ConfigError, TrainConfig

DEFAULT_VARIANT = "mixer_cifar10"
# Fields that may change when a run is resumed: they affect times and speed, never the results.
FREE = ("save_minutes", "workers")
# Fields that a run sets itself if they are left open ("", 0, "auto", None).
FOUND_OUT = ("variant", "image_size", "precision", "batch_size", "validation", "label_smoothing")
BATCH_SIZE, VALIDATION = 128, 2000  # if they are left open and the set is large enough


def sizes(config: TrainConfig, images: int, devices: int) -> tuple[int, int]:
    """The number of held-back images, and the batch size, for so many images and devices.

    Raises ConfigError, which names all impossible values.
    """
    most = images - devices  # each device takes one image a step, or more
    if most < 1:
        raise ConfigError(
            f"data: {counted(images, 'training image is', 'training images are')} too few; there "
            f"must be at least {devices + 1}: one for each device, and one to hold back"
        )
    tenth = max(1, min(VALIDATION, images // 10, most))
    wrong = []
    held_back = tenth if config.validation is None else config.validation
    if held_back > most:
        wrong.append(
            f"validation: cannot hold back {held_back} of {images} images; choose at most "
            f"{most}, or leave it out for {tenth}"
        )
        held_back = tenth  # the batch size is checked against this number
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


def recorded(before: Mapping[str, Any]) -> TrainConfig | None:
    """The configuration in a record, which JSON has kept; None in an empty record.

    Fields that an old record lacks have the values that they had then. Raises ConfigError for
    values that no run can have.
    """
    if not before:
        return None
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    found = {name: value for name, value in before.items() if name in known}
    if "stairs" in found:
        found["stairs"] = tuple(found["stairs"])  # JSON has turned the tuple into a list
    return TrainConfig(**{"precision": "float32", **found})


def go_on(config: TrainConfig, before: dict[str, Any]) -> TrainConfig:
    """The configuration of a resumed run, which began with the record `before`.

    Raises ConfigError for a field whose value differs from the record. Fields that are left open
    are taken from the record.
    """
    old = dataclasses.asdict(recorded(before) or TrainConfig())
    open_ = dataclasses.asdict(TrainConfig())
    for field, value in dataclasses.asdict(config).items():
        left_open = field in FOUND_OUT and value == open_[field]
        if old[field] != value and not left_open and field not in FREE:
            raise ConfigError(
                f"{field}: this run was started with {old[field]!r}, not {value!r}; "
                "leave it out to go on with that, or start anew with another --out"
            )
    left = {field: old[field] for field in FOUND_OUT}
    return dataclasses.replace(config, **left)


def settle(config: TrainConfig, variant: str, image_size: int) -> TrainConfig:
    """Set variant, image size, precision and smoothing; raises ConfigError."""
    precision = config.precision
    if precision == "auto":
        precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    image_size = config.image_size or image_size or models.native_image_size(variant)
    row = VARIANTS.get(variant)
    patch = getattr(row.sizes, "patch_size", 1) if row else 1
    if image_size % patch:
        raise ConfigError(f"image_size: {image_size} is no multiple of the patch size {patch}")
    smoothing = config.label_smoothing
    if smoothing is None:
        smoothing = 0.0 if config.start_from or config.teacher else 0.1
    return dataclasses.replace(
        config,
        variant=variant,
        image_size=image_size,
        precision=precision,
        label_smoothing=smoothing,
    )
