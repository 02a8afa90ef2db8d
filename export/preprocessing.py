"""How an image of any size becomes a model's input: a property of the weights, not of a server.

In: what a checkpoint's publisher says, for timm its `config.json`. Out: a `Preprocessing`.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal, cast

from contracts.published import CheckpointError
from contracts.resizing import ResizeRule

Resize = Literal["squash", "shortest"]
Interpolation = Literal["bilinear", "bicubic"]
Rounding = Literal["tensorflow", "torchvision"]

# The start of timm's architecture names, by family, and timm's defaults.
_TIMM_NAMES = {"mixer": ("mixer_",), "vit": ("vit_", "deit_"), "bit": ("resnetv2_",)}
_TIMM_INTERPOLATION: dict[str, Interpolation] = {
    "mixer": "bicubic",
    "vit": "bicubic",
    "bit": "bilinear",
}
_TIMM_CROP = {"mixer": 0.875, "vit": 0.9, "bit": 0.875}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Resize, cut, nothing else: pixels are normalised in the graph.

    `resize` is "squash" (straight to a square, ignoring the aspect) or "shortest" (the short side,
    keeping the aspect), to round(image_size / crop_fraction); the central square is then cut out.
    `rounding` is the arithmetic of the library that the weights were evaluated with.
    """

    resize: Resize = "squash"
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    crop_fraction: float = 1.0
    rounding: Rounding = "tensorflow"

    def at(self, image_size: int) -> ResizeRule:
        """The rule for square inputs of `image_size` pixels per side."""
        return ResizeRule(image_size, image_size, **dataclasses.asdict(self))


def read_timm_config(path: Path, metadata: dict[str, str], family: str) -> dict[str, Any]:
    """timm's `pretrained_cfg` for a file: from its own metadata, else from `config.json` beside it.

    Empty where neither says anything about a model of this family. Raises CheckpointError where
    one of them is no JSON.
    """
    beside = path.with_name("config.json")
    try:
        if "pretrained_cfg" in metadata:
            config = {"pretrained_cfg": json.loads(metadata["pretrained_cfg"])}
        elif beside.is_file():
            config = json.loads(beside.read_text(encoding="utf-8"))
            if not str(config.get("architecture", "")).startswith(_TIMM_NAMES[family]):
                return {}
        else:
            return {}
        found = config.get("pretrained_cfg", {})
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{beside.name}: expected timm's JSON, found {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"pretrained_cfg: expected a JSON object, found {found!r}")
    return found


def timm_image_size(pretrained_cfg: dict[str, Any], default: int) -> int:
    """Pixels per side of the images that timm evaluates a model with; `input_size` is [3, H, W]."""
    match pretrained_cfg.get("input_size", [3, default, default]):
        case [3, int(height), int(width)] if height == width > 0:
            return height
        case found:
            raise CheckpointError(f"timm's input_size: expected [3, size, size], found {found!r}")


def timm_preprocessing(
    pretrained_cfg: dict[str, Any], family: str, published_size: int, image_size: int
) -> Preprocessing:
    """timm's rule for evaluation: its configuration, with the family's defaults for what it lacks.

    Raises CheckpointError for a rule that cannot be expressed.
    """

    def choose(name: str, default: object, known: tuple[object, ...]) -> object:
        found = pretrained_cfg.get(name, default)
        if found not in known:
            raise CheckpointError(f"timm's {name}: expected one of {known}, found {found!r}")
        return found

    # timm's own configurations for weights above 224 pixels cut nothing.
    default_crop = _TIMM_CROP[family] if published_size <= 224 else 1.0
    crop = pretrained_cfg.get("crop_pct", default_crop)
    if isinstance(crop, bool) or not isinstance(crop, int | float) or not 0 < crop <= 1:
        raise CheckpointError(f"timm's crop_pct: expected a number in (0, 1], found {crop!r}")
    mode = choose("crop_mode", "center", ("center", "squash"))
    known = ("bilinear", "bicubic")
    interpolation = choose("interpolation", _TIMM_INTERPOLATION[family], known)
    return Preprocessing(
        resize="squash" if mode == "squash" else "shortest",
        interpolation=cast(Interpolation, interpolation),
        antialias=True,
        # timm rounds the resized side down; so expressed, rounding to the nearest gives the same.
        crop_fraction=image_size / math.floor(image_size / crop),
        rounding="torchvision",
    )
