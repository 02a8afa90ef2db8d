"""Hugging Face transformers' folders: ViT and BiT under timm's names, and what config.json says.

In: the arrays of `model.safetensors`, `config.json` and `preprocessor_config.json`. Out: the same
arrays under timm's names, and the settings that no array shows. A file has the names from before
version 5, or the present names if a state dict was saved as it is in memory; both are read.
Source: transformers 5.24.0, models/vit, models/bit and image_processing_backends.py.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from contracts.npz import Arrays
from contracts.published import CheckpointError
from export.formats.rearranged import Renamed
from export.models.network import Gelu
from export.preprocessing import (
    Activation,
    Interpolation,
    Normalization,
    Preprocessing,
    channels,
)

_CLASSES = {"vit": "ViTForImageClassification", "bit": "BitForImageClassification"}
_VIT_BLOCK = r"vit\.(?:encoder\.layer|layers)\.(\d+)\."
# transformers' scope -> timm's.
_SCOPES: list[tuple[str, str]] = [
    (r"vit\.embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"vit\.embeddings\.cls_token", "cls_token"),
    (r"vit\.embeddings\.position_embeddings", "pos_embed"),
    (rf"{_VIT_BLOCK}layernorm_before", r"blocks.\1.norm1"),
    (rf"{_VIT_BLOCK}layernorm_after", r"blocks.\1.norm2"),
    (rf"{_VIT_BLOCK}attention\.attention\.(query|key|value)", r"blocks.\1.attn.\2"),
    (rf"{_VIT_BLOCK}attention\.q_proj", r"blocks.\1.attn.query"),
    (rf"{_VIT_BLOCK}attention\.k_proj", r"blocks.\1.attn.key"),
    (rf"{_VIT_BLOCK}attention\.v_proj", r"blocks.\1.attn.value"),
    (rf"{_VIT_BLOCK}attention\.(?:output\.dense|o_proj)", r"blocks.\1.attn.proj"),
    (rf"{_VIT_BLOCK}(?:intermediate\.dense|mlp\.fc1)", r"blocks.\1.mlp.fc1"),
    (rf"{_VIT_BLOCK}(?:output\.dense|mlp\.fc2)", r"blocks.\1.mlp.fc2"),
    (r"vit\.layernorm", "norm"),
    (r"bit\.embedder\.convolution", "stem.conv"),
    (r"bit\.encoder\.stages\.(\d+)\.layers\.(\d+)\.(\w+(?:\.conv)?)", r"stages.\1.blocks.\2.\3"),
    (r"bit\.norm", "norm"),
    (r"classifier\.1", "head.fc"),
    (r"classifier", "head"),
]
_GELUS: dict[str, Gelu] = {
    "gelu": "erf",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "quick_gelu": "quick",
}
_ACTIVATIONS: dict[object, Activation] = {
    None: "softmax",
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}
# The settings that each family must have, by transformers' names and with its defaults. Networks
# with other values compute differently, and are refused.
_FIXED: dict[str, dict[str, object]] = {
    "vit": {"num_channels": 3},
    "bit": {
        "num_channels": 3,
        "layer_type": "preactivation",
        "hidden_act": "relu",
        "global_padding": None,
        "num_groups": 32,
        "embedding_dynamic_padding": False,
        "output_stride": 32,
    },
}
_PROCESSORS = {"vit": "ViT", "bit": "Bit"}
_INTERPOLATIONS: dict[object, Interpolation] = {2: "bilinear", 3: "bicubic"}


@dataclasses.dataclass(frozen=True)
class TransformersSettings:
    """The settings of config.json that no array shows."""

    family: str  # "vit" or "bit"
    activation: Activation
    heads: int | None = None  # of a ViT; None where the configuration lacks it
    gelu: Gelu = "erf"
    layer_norm_epsilon: float = 1e-12


def read_settings(config: Mapping[str, Any]) -> TransformersSettings:
    """Read a `config.json`; raises CheckpointError for a value that this program does not know."""
    family = config.get("model_type")
    if family not in _CLASSES:
        raise CheckpointError(
            f"config.json: model_type is {family!r}, expected 'vit' or 'bit'; export it to ONNX "
            "and publish that with --onnx"
        )
    classes = config.get("architectures") or []
    if _CLASSES[family] not in classes:
        raise CheckpointError(
            f"config.json: architectures is {classes!r}, expected [{_CLASSES[family]!r}]: other "
            "classes have no classifier"
        )
    for name, expected in _FIXED[family].items():
        if (found := config.get(name, expected)) != expected:
            raise CheckpointError(
                f"config.json: {name} is {found!r}, expected {expected!r}: this program does not "
                "compute the other kind; export it to ONNX and publish that with --onnx"
            )
    if (kind := config.get("problem_type")) not in _ACTIVATIONS:
        raise CheckpointError(f"config.json: problem_type is {kind!r}, which is no classification")
    if family == "bit":
        # transformers has no stride in the stages after the output stride is reached.
        if len(config.get("depths", ())) > 4:
            raise CheckpointError("config.json: expected at most 4 depths at output_stride 32")
        return TransformersSettings(family, _ACTIVATIONS[kind])
    if (act := config.get("hidden_act", "gelu")) not in _GELUS:
        raise CheckpointError(f"config.json: hidden_act is {act!r}, expected one of {list(_GELUS)}")
    epsilon = config.get("layer_norm_eps", 1e-12)
    heads = config.get("num_attention_heads")
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise CheckpointError(f"config.json: layer_norm_eps is {epsilon!r}, expected a number")
    if heads is not None and not isinstance(heads, int):
        raise CheckpointError(f"config.json: num_attention_heads is {heads!r}, expected a number")
    return TransformersSettings(family, _ACTIVATIONS[kind], heads, _GELUS[act], epsilon)


def timm_names(file: Arrays) -> Renamed:
    """The arrays under timm's names, without arrays that a classifier does not use."""
    arrays = Renamed(file, _timm_name)
    for key in list(arrays.shapes):
        # ViTModel's pooler is not part of ViTForImageClassification, but some files hold it.
        if key.startswith("vit.pooler.") or key == "vit.embeddings.mask_token":
            del arrays.shapes[key]
    return arrays


def _timm_name(key: str) -> str:
    scope, dot, leaf = key.rpartition(".")
    for pattern, to in _SCOPES:
        if match := re.fullmatch(pattern, scope):
            return f"{match.expand(to)}{dot}{leaf}"
        if match := re.fullmatch(pattern, key):
            return match.expand(to)
    return key


def preprocessing(
    config: Mapping[str, Any], family: str
) -> tuple[int, Preprocessing, Normalization]:
    """Read a `preprocessor_config.json`: pixels per side, resizing and normalisation.

    Raises CheckpointError, which names the field, for a rule that cannot be expressed.
    """
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    stem = re.sub(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$", "", kind)
    if stem not in ("", _PROCESSORS[family]):
        raise _wrong("image_processor_type", kind, f"{_PROCESSORS[family]}ImageProcessor")
    bit = family == "bit"
    for name, expected in {
        "do_resize": True,
        "do_rescale": True,
        "do_center_crop": bit,
        "do_pad": False,
    }.items():
        if (found := config.get(name, expected)) not in (expected, None):
            raise _wrong(name, found, expected)
    if abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise _wrong("rescale_factor", config["rescale_factor"], "1 / 255")
    resample = config.get("resample", 3 if bit else 2)
    if resample not in _INTERPOLATIONS:
        raise _wrong("resample", resample, "2 (bilinear) or 3 (bicubic)")
    resized = _side(config, "size", "shortest_edge" if bit else None)
    size = _side(config, "crop_size", None) if bit else resized
    if size > resized:
        raise _wrong("crop_size", size, f"at most {resized}, the size")
    normalize = config.get("do_normalize", True)
    return (
        size,
        Preprocessing(
            "shortest" if bit else "squash",
            _INTERPOLATIONS[resample],
            crop_fraction=size / resized,
            rounding="transformers",
        ),
        Normalization(
            channels("preprocessor_config.json: image_mean", config.get("image_mean")),
            channels("preprocessor_config.json: image_std", config.get("image_std")),
        )
        if normalize
        else Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    )


def _side(config: Mapping[str, Any], name: str, edge: str | None) -> int:
    """Pixels per side; old files have a number, new ones an object."""
    match config.get(name, 224):
        case int(side) if side > 0:
            return side
        case {"height": int(height), "width": int(width), **rest} if height == width > 0:
            if not edge and not any(rest.values()):
                return height
        case {"shortest_edge": int(side), **rest} if edge and side > 0 and not any(rest.values()):
            return side
    expected = f"an object of {edge}" if edge else "an object of height and width, which are equal"
    raise _wrong(name, config[name], expected)


def _wrong(name: str, found: object, expected: object) -> CheckpointError:
    return CheckpointError(f"preprocessor_config.json: {name} is {found!r}, expected {expected}")
