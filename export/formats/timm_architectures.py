"""timm's architectures by name: properties of their code that the arrays do not show.

In: the `config.json` that timm writes beside weights. Out: `TimmSettings`, or a CheckpointError
that names the unknown part. Nothing is guessed: an architecture that is not in the table is
refused, and so is an argument whose effect on the computation is not known.
Source: timm 1.0.31, models/vision_transformer.py, deit.py, mlp_mixer.py and resnetv2.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from contracts.published import CheckpointError
from export.models.network import Gelu, Pool


@dataclasses.dataclass(frozen=True)
class TimmSettings:
    """The properties of timm's code for one architecture."""

    family: str  # "mixer", "vit" or "bit"
    heads: int = 0  # of a ViT
    gelu: Gelu = "erf"
    layer_norm_epsilon: float = 1e-6
    pool: Pool = "token"
    prefix_has_positions: bool = True  # whether class token and registers have embeddings


def _vits(heads: int, names: str, **settings: Any) -> dict[str, TimmSettings]:  # noqa: ANN401 - fields
    return {name: TimmSettings("vit", heads, **settings) for name in names.split()}


_CLIP = {"layer_norm_epsilon": 1e-5}
_QUICK = {**_CLIP, "gelu": "quick"}
_MEAN = {"pool": "mean"}
_REGISTERS = {"pool": "mean", "prefix_has_positions": False}
_DEIT3 = {"prefix_has_positions": False}
ARCHITECTURES: dict[str, TimmSettings] = {
    **_vits(3, "vit_tiny_patch16_224 vit_tiny_patch16_384 deit_tiny_patch16_224"),
    **_vits(6, "vit_small_patch8_224 vit_small_patch16_224 vit_small_patch16_384"),
    **_vits(6, "vit_small_patch32_224 vit_small_patch32_384 deit_small_patch16_224"),
    **_vits(6, "vit_small_patch14_dinov2 vit_small_patch16_36x1_224"),
    **_vits(12, "vit_base_patch8_224 vit_base_patch16_224 vit_base_patch16_384"),
    **_vits(12, "vit_base_patch32_224 vit_base_patch32_384 vit_base_patch16_224_miil"),
    **_vits(12, "vit_base_patch14_dinov2 deit_base_patch16_224 deit_base_patch16_384"),
    **_vits(14, "vit_base_patch16_plus_240 vit_base_patch32_plus_256"),
    **_vits(16, "vit_large_patch14_224 vit_large_patch16_224 vit_large_patch16_384"),
    **_vits(16, "vit_large_patch32_224 vit_large_patch32_384 vit_large_patch14_dinov2"),
    **_vits(16, "vit_huge_patch14_224 vit_giant_patch14_224 vit_gigantic_patch14_224"),
    # The mean over all patches is classified.
    **_vits(8, "vit_medium_patch16_gap_240 vit_medium_patch16_gap_256", **_MEAN),
    **_vits(8, "vit_medium_patch16_gap_384", **_MEAN),
    **_vits(10, "vit_betwixt_patch16_gap_256", **_MEAN),
    **_vits(13, "vit_so150m2_patch16_reg1_gap_256 vit_so150m2_patch16_reg1_gap_384", **_MEAN),
    **_vits(13, "vit_so150m2_patch16_reg1_gap_448", **_MEAN),
    **_vits(14, "vit_so150m_patch16_reg4_gap_256 vit_so150m_patch16_reg4_gap_384", **_MEAN),
    **_vits(16, "vit_base_patch16_gap_224 vit_huge_patch14_gap_224", **_MEAN),
    **_vits(16, "vit_huge_patch16_gap_448 vit_giant_patch16_gap_224", **_MEAN),
    # Register tokens, which have no position.
    **_vits(4, "vit_wee_patch16_reg1_gap_256", **_REGISTERS),
    **_vits(5, "vit_little_patch16_reg1_gap_256 vit_little_patch16_reg4_gap_256", **_REGISTERS),
    **_vits(8, "vit_medium_patch16_reg1_gap_256 vit_medium_patch16_reg4_gap_256", **_REGISTERS),
    **_vits(8, "vit_mediumd_patch16_reg4_gap_256 vit_mediumd_patch16_reg4_gap_384", **_REGISTERS),
    **_vits(10, "vit_betwixt_patch16_reg1_gap_256 vit_betwixt_patch16_reg4_gap_256", **_REGISTERS),
    **_vits(10, "vit_betwixt_patch16_reg4_gap_384", **_REGISTERS),
    **_vits(12, "vit_base_patch16_reg4_gap_256", **_REGISTERS),
    **_vits(6, "vit_small_patch14_reg4_dinov2", **_DEIT3),
    **_vits(12, "vit_base_patch14_reg4_dinov2", **_DEIT3),
    **_vits(16, "vit_large_patch14_reg4_dinov2", **_DEIT3),
    **_vits(6, "deit3_small_patch16_224 deit3_small_patch16_384", **_DEIT3),
    **_vits(8, "deit3_medium_patch16_224", **_DEIT3),
    **_vits(12, "deit3_base_patch16_224 deit3_base_patch16_384", **_DEIT3),
    **_vits(16, "deit3_large_patch16_224 deit3_large_patch16_384", **_DEIT3),
    **_vits(16, "deit3_huge_patch14_224", **_DEIT3),
    # CLIP's image towers, with a classifier.
    **_vits(4, "vit_xsmall_patch16_clip_224", **_CLIP),
    **_vits(8, "vit_medium_patch16_clip_224 vit_medium_patch32_clip_224", **_CLIP),
    **_vits(10, "vit_betwixt_patch32_clip_224", **_CLIP),
    **_vits(12, "vit_base_patch16_clip_224 vit_base_patch16_clip_384", **_CLIP),
    **_vits(12, "vit_base_patch32_clip_224 vit_base_patch32_clip_256", **_CLIP),
    **_vits(12, "vit_base_patch32_clip_384 vit_base_patch32_clip_448", **_CLIP),
    **_vits(14, "vit_base_patch16_plus_clip_240", **_CLIP),
    **_vits(16, "vit_large_patch14_clip_224 vit_large_patch14_clip_336", **_CLIP),
    **_vits(16, "vit_huge_patch14_clip_224 vit_huge_patch14_clip_336", **_CLIP),
    **_vits(16, "vit_huge_patch14_clip_378 vit_giant_patch14_clip_224", **_CLIP),
    **_vits(16, "vit_gigantic_patch14_clip_224 vit_gigantic_patch14_clip_378", **_CLIP),
    **_vits(
        12, "vit_base_patch16_clip_quickgelu_224 vit_base_patch32_clip_quickgelu_224", **_QUICK
    ),
    **_vits(16, "vit_large_patch14_clip_quickgelu_224", **_QUICK),
    **_vits(16, "vit_large_patch14_clip_quickgelu_336", **_QUICK),
    **_vits(16, "vit_huge_patch14_clip_quickgelu_224", **_QUICK),
    **_vits(16, "vit_huge_patch14_clip_quickgelu_378", **_QUICK),
    **_vits(16, "vit_gigantic_patch14_clip_quickgelu_224", **_QUICK),
    **dict.fromkeys(
        (f"mixer_{size}_224" for size in ("s16", "s32", "b16", "b32", "l16", "l32")),
        TimmSettings("mixer", pool="mean"),
    ),
    **dict.fromkeys(
        (f"resnetv2_{size}_bit" for size in ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4")),
        TimmSettings("bit", pool="mean"),
    ),
}

# Arguments of timm's models whose values follow from the names and shapes of the arrays.
_VISIBLE = {
    "vit": {
        *("img_size", "patch_size", "embed_dim", "depth", "mlp_ratio", "qkv_bias", "qk_norm"),
        *("scale_attn_norm", "scale_mlp_norm", "proj_bias", "init_values", "class_token"),
        *("reg_tokens", "pre_norm", "fc_norm"),
    },
    "mixer": {"img_size", "patch_size", "embed_dim", "num_blocks", "mlp_ratio"},
    "bit": {"layers", "channels", "width_factor"},
}
# Arguments that have an effect only in training, or only for images of another size than the
# weights' own.
_HARMLESS = {
    *("drop_rate", "drop_path_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate"),
    *("attn_drop_rate", "weight_init", "fix_init", "zero_init_last", "nlhb"),
    *("dynamic_img_size", "dynamic_img_pad", "strict_img_size"),
}
# Arguments for which this program accepts only one value.
_FIXED: dict[str, tuple[object, ...]] = {
    "in_chans": (3,),
    "final_norm": (True,),
    "pool_include_prefix": (False,),
    "pos_embed": ("learn",),
    "output_stride": (32,),
}
_GELUS: dict[str, Gelu] = {"gelu": "erf", "gelu_tanh": "tanh", "quick_gelu": "quick"}
_POOLS: dict[str, Pool] = {"token": "token", "avg": "mean"}


def read_settings(config: Mapping[str, Any], family: str) -> TimmSettings:
    """The settings in a `config.json`; `family` is the family of the file's arrays.

    Raises CheckpointError for an architecture or an argument that this program does not know.
    """
    name = architecture(config)
    settings = ARCHITECTURES.get(name)
    if settings is None:
        known = ", ".join(sorted(key for key, row in ARCHITECTURES.items() if row.family == family))
        raise CheckpointError(
            f"config.json: this program does not know how timm's {name!r} computes; export it to "
            f"ONNX with timm and publish that with --onnx. Known with arrays like these: {known}"
        )
    if settings.family != family:
        raise CheckpointError(
            f"config.json: it says {name!r}, but the arrays are those of a {family}"
        )
    arguments: dict[str, Any] = dict(config.get("model_args") or {})
    settings = _with_pool(settings, arguments.pop("global_pool", None), config.get("global_pool"))
    arguments.pop("num_classes", None)  # the shape of the head decides instead
    for argument, value in arguments.items():
        settings = _with(settings, argument, value)
    return settings


def architecture(config: Mapping[str, Any]) -> str:
    """The name of the architecture, without the tag of its weights; raises CheckpointError."""
    name = config.get("architecture")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"config.json: expected timm's architecture, found {name!r}")
    return name.partition(".")[0]


def _with(settings: TimmSettings, argument: str, value: object) -> TimmSettings:
    """The settings after one more argument of the model is applied."""
    if argument in _VISIBLE[settings.family] | _HARMLESS or value is None:
        return settings
    if argument in _FIXED and value not in _FIXED[argument]:
        raise _unknown(argument, value, f"expected {_FIXED[argument][0]!r}")
    changes: dict[str, Any] = {}
    match argument, value:
        case "num_heads", int() if settings.family == "vit":
            changes["heads"] = value
        case "no_embed_class", bool() if settings.family == "vit":
            changes["prefix_has_positions"] = not value
        case "act_layer", str() if value in _GELUS and settings.family != "bit":
            changes["gelu"] = _GELUS[value]
        case "norm_layer", "layernorm" if settings.family == "vit":
            changes["layer_norm_epsilon"] = 1e-6
        case _ if argument not in _FIXED:
            raise _unknown(argument, value, "this program does not know what that changes")
    return dataclasses.replace(settings, **changes)


def _with_pool(settings: TimmSettings, argument: object, noted: object) -> TimmSettings:
    """The settings after `global_pool` is applied.

    `argument` is the value that the model was made with; `noted` is the value that timm recorded in
    the configuration. timm does not read its record, but if the two disagree, the configuration is
    refused.
    """
    value = noted if argument is None else argument
    if value is None:
        return settings
    if value not in _POOLS or (settings.family != "vit" and value != "avg"):
        raise _unknown("global_pool", value, "expected 'avg', or of a ViT 'token'")
    pool = _POOLS[str(value)]
    if argument is None and pool != settings.pool:
        raise _unknown("global_pool", value, "model_args says nothing of it; say there which it is")
    return dataclasses.replace(settings, pool=pool)


def _unknown(argument: str, value: object, why: str) -> CheckpointError:
    return CheckpointError(f"config.json: {argument} is {value!r}; {why}")
