"""How timm prepares images for a model: its `pretrained_cfg`.

In: the `pretrained_cfg` of a `config.json`, or of a file's own metadata. Out: the image size, a
`Preprocessing`, a `Normalization`. A value that the configuration lacks is timm's default for the
family.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, cast

from contracts.published import CheckpointError
from export.preprocessing import (
    Channels,
    Interpolation,
    Normalization,
    Preprocessing,
    channels,
)

_INTERPOLATION: dict[str, Interpolation] = {
    "mixer": "bicubic",
    "vit": "bicubic",
    "bit": "bilinear",
}
_CROP = {"mixer": 0.875, "vit": 0.9, "bit": 0.875}
_HALF: Channels = (0.5, 0.5, 0.5)


def pretrained_cfg(metadata: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, Any]:
    """timm's `pretrained_cfg`: from a file's own metadata, else from `config.json`; else empty."""
    found = config.get("pretrained_cfg", {})
    if "pretrained_cfg" in metadata:
        try:
            found = json.loads(metadata["pretrained_cfg"])
        except ValueError as error:
            raise CheckpointError(
                f"pretrained_cfg: expected a JSON object, found {error}"
            ) from None
    if not isinstance(found, dict):
        raise CheckpointError(f"pretrained_cfg: expected a JSON object, found {found!r}")
    return found


def image_size(cfg: Mapping[str, Any], default: int) -> int:
    """Pixels per side of the images that timm evaluates a model with; `input_size` is [3, H, W]."""
    match cfg.get("input_size", [3, default, default]):
        case [3, int(height), int(width)] if height == width > 0:
            return height
        case found:
            raise CheckpointError(f"timm's input_size: expected [3, size, size], found {found!r}")


def normalization(cfg: Mapping[str, Any]) -> Normalization:
    """timm's mean and standard deviation; raises CheckpointError if they are not valid."""
    return Normalization(
        channels("timm's mean", cfg.get("mean", _HALF)),
        channels("timm's std", cfg.get("std", _HALF)),
    )


def preprocessing(
    cfg: Mapping[str, Any], family: str, published_size: int, size: int
) -> Preprocessing:
    """timm's rule for evaluation at `size`, with weights of `published_size` pixels per side.

    Raises CheckpointError for a rule that cannot be expressed.
    """

    def choose(name: str, default: object, known: tuple[object, ...]) -> object:
        found = cfg.get(name, default)
        if found not in known:
            raise CheckpointError(f"timm's {name}: expected one of {known}, found {found!r}")
        return found

    # timm's own configurations for weights above 224 pixels crop nothing.
    default_crop = _CROP[family] if published_size <= 224 else 1.0
    crop = cfg.get("crop_pct", default_crop)
    if isinstance(crop, bool) or not isinstance(crop, int | float) or not 0 < crop <= 1:
        raise CheckpointError(f"timm's crop_pct: expected a number in (0, 1], found {crop!r}")
    mode = choose("crop_mode", "center", ("center", "squash"))
    interpolation = choose("interpolation", _INTERPOLATION[family], ("bilinear", "bicubic"))
    return Preprocessing(
        resize="squash" if mode == "squash" else "shortest",
        interpolation=cast(Interpolation, interpolation),
        antialias=True,
        # timm rounds the resized side down. With the fraction computed in this way, rounding to the
        # nearest gives the same side.
        crop_fraction=size / math.floor(size / crop),
        rounding="torchvision",
    )
