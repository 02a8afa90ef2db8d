"""timm's names for the same models: its files become files in the published format.

In: the arrays of a timm state dict (mixer_*, vit_*, deit_*, resnetv2_*_bit) and what timm's
configuration says of its pixels. Out: the same arrays by their published keys, for pixels
normalised as this program's graphs do.
"""

import dataclasses
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.npz import Array, Arrays
from contracts.published import CheckpointError, Shape
from contracts.variants import VARIANTS, ViTSizes
from export.models.network import Flavour

# A key that only one family has.
_SIGNATURES = {
    "mixer": "stem.proj.weight",
    "vit": "patch_embed.proj.weight",
    "bit": "stem.conv.weight",
}
_BLOCK = r"blocks\.(?P<n>\d+)\."
_ENCODER = r"Transformer/encoderblock_\g<n>"
_ATTENTION = rf"{_ENCODER}/MultiHeadDotProductAttention_1"
# timm's scope -> the published scope.
_SCOPES: dict[str, dict[str, str]] = {
    "mixer": {
        r"stem\.proj": "stem",
        rf"{_BLOCK}norm1": r"MixerBlock_\g<n>/LayerNorm_0",
        rf"{_BLOCK}norm2": r"MixerBlock_\g<n>/LayerNorm_1",
        rf"{_BLOCK}mlp_tokens\.fc1": r"MixerBlock_\g<n>/token_mixing/Dense_0",
        rf"{_BLOCK}mlp_tokens\.fc2": r"MixerBlock_\g<n>/token_mixing/Dense_1",
        rf"{_BLOCK}mlp_channels\.fc1": r"MixerBlock_\g<n>/channel_mixing/Dense_0",
        rf"{_BLOCK}mlp_channels\.fc2": r"MixerBlock_\g<n>/channel_mixing/Dense_1",
        "norm": "pre_head_layer_norm",
        "head": "head",
    },
    "vit": {
        r"patch_embed\.proj": "embedding",
        rf"{_BLOCK}norm1": rf"{_ENCODER}/LayerNorm_0",
        rf"{_BLOCK}norm2": rf"{_ENCODER}/LayerNorm_2",
        rf"{_BLOCK}attn\.qkv": rf"{_ATTENTION}/qkv",
        rf"{_BLOCK}attn\.proj": rf"{_ATTENTION}/out",
        rf"{_BLOCK}mlp\.fc1": rf"{_ENCODER}/MlpBlock_3/Dense_0",
        rf"{_BLOCK}mlp\.fc2": rf"{_ENCODER}/MlpBlock_3/Dense_1",
        "norm": "Transformer/encoder_norm",
        r"pre_logits\.fc": "pre_logits",
        "head": "head",
    },
    "bit": {
        r"stem\.conv": "resnet/root_block/standardized_conv2d",
        "norm": "resnet/group_norm",
        r"head\.fc": "resnet/head/conv2d",
    },
}
# timm computes some things differently from the code that trained these weights.
FLAVOURS: dict[str, Flavour] = {
    "mixer": Flavour(gelu="erf"),
    "vit": Flavour(gelu="erf"),
    "bit": Flavour(standardization_epsilon=1e-8),
}
_BIT_UNIT = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.(norm|conv|downsample\.conv)([123]?)")


def family_of(shapes: dict[str, Shape]) -> str | None:
    """The family of a timm file: "mixer", "vit" or "bit"; None for any other file."""
    for family, key in _SIGNATURES.items():
        if key in shapes:
            return family
    return None


@dataclasses.dataclass(frozen=True)
class _Piece:
    """Where a published array comes from: some rows of one of timm's arrays, and its new shape."""

    source: str
    rows: slice
    shape: Shape


class TimmArrays:
    """The arrays of a timm file by their published keys, in their published shapes."""

    def __init__(self, file: Arrays, family: str, pretrained_cfg: dict[str, Any]) -> None:
        self._file = file
        self._pieces: dict[str, _Piece] = {}
        self._mean = _per_channel(pretrained_cfg, "mean")
        self._std = _per_channel(pretrained_cfg, "std")
        self._folds = not (np.allclose(self._mean, 0.5) and np.allclose(self._std, 0.5))
        if self._folds and family == "bit":
            raise CheckpointError(
                "expected mean and std of 0.5, which this program's graphs normalise with, found "
                f"mean {self._mean} and std {self._std}; a BiT's root cannot take up the difference"
            )
        heads = _heads(file.shapes) if family == "vit" else 0
        for key, shape in file.shapes.items():
            self._add(key, shape, family, heads)
        self.shapes = {key: piece.shape for key, piece in self._pieces.items()}

    def _add(self, key: str, shape: Shape, family: str, heads: int) -> None:
        scope, _, name = key.rpartition(".")
        to = _published_scope(scope, family)
        turned = tuple(shape[axis] for axis in _axes(len(shape)))
        if key in ("cls_token", "pos_embed"):
            to = "cls" if key == "cls_token" else "Transformer/posembed_input/pos_embedding"
            self._pieces[to] = _Piece(key, slice(None), shape)
        elif to is None or name not in ("weight", "bias"):
            self._pieces[key] = _Piece(key, slice(None), shape)  # reported as left over
        elif to.endswith("/qkv"):
            width = shape[0] // 3
            split = (heads, width // heads)
            for part, published in enumerate(("query", "key", "value")):
                rows = slice(part * width, (part + 1) * width)
                new = (*turned[:-1], *split)
                leaf = "kernel" if name == "weight" else "bias"
                self._pieces[f"{to.removesuffix('qkv')}{published}/{leaf}"] = _Piece(key, rows, new)
        else:
            norm = ("gamma", "beta") if family == "bit" else ("scale", "bias")
            weight, bias = norm if "norm" in scope else ("kernel", "bias")
            if to.endswith("/out") and len(turned) == 2:
                turned = (heads, turned[0] // heads, turned[1])
            leaf = weight if name == "weight" else bias
            self._pieces[f"{to}/{leaf}"] = _Piece(key, slice(None), turned)

    def read(self, key: str) -> Array:
        """The values of one array, by its published key."""
        piece = self._pieces[key]
        array = self._file.read(piece.source)[piece.rows]
        array = array.transpose(_axes(array.ndim)).reshape(piece.shape)
        return self._folded(key, array) if self._folds else array

    def _folded(self, key: str, array: Array) -> Array:
        # timm feeds (p/255 - mean) / std where the graph feeds x = (p - 127.5) / 127.5: so the
        # stem, which is linear and pads nothing, sees x / (2 std) + (0.5 - mean) / std.
        if key in ("stem/kernel", "embedding/kernel"):
            array = (array / (2 * self._std)[:, None]).astype(np.float32)
        if key in ("stem/bias", "embedding/bias"):
            source = self._pieces[key.replace("bias", "kernel")].source
            kernel = self._file.read(source).astype(np.float64)  # [width, 3, P, P]
            shift = kernel.sum(axis=(2, 3)) @ ((0.5 - self._mean) / self._std)
            array = (array + shift).astype(np.float32)
        return array


def _per_channel(pretrained_cfg: dict[str, Any], name: str) -> npt.NDArray[np.float64]:
    lowest = 0.0 if name == "mean" else 1e-6
    match pretrained_cfg.get(name, [0.5, 0.5, 0.5]):
        case [int() | float(), int() | float(), int() | float()] as values if min(values) >= lowest:
            return np.array(values, np.float64)
        case found:
            above = "" if name == "mean" else " above 0"
            raise CheckpointError(f"timm's {name}: expected three numbers{above}, found {found!r}")


def _axes(ndim: int) -> tuple[int, ...]:
    """PyTorch's order of axes to the published one: OIHW to HWIO, [out, in] to [in, out]."""
    return {4: (2, 3, 1, 0), 2: (1, 0)}.get(ndim, tuple(range(ndim)))


def _published_scope(scope: str, family: str) -> str | None:
    for pattern, published in _SCOPES[family].items():
        match = re.fullmatch(pattern, scope)
        if match:
            return match.expand(published)
    unit = _BIT_UNIT.fullmatch(scope) if family == "bit" else None
    if unit is None:
        return None
    block, number, kind, step = unit.groups()
    to = f"resnet/block{int(block) + 1}/unit{int(number) + 1:02d}"
    if kind == "downsample.conv":
        return f"{to}/a/proj/standardized_conv2d" if not step else None
    part = "group_norm" if kind == "norm" else "standardized_conv2d"
    return f"{to}/{'abc'[int(step) - 1]}/{part}" if step else None


def _heads(shapes: dict[str, Shape]) -> int:
    width = shapes["patch_embed.proj.weight"][0]
    layers = len([key for key in shapes if key.endswith(".attn.qkv.weight")])
    rows = [row.sizes for row in VARIANTS.values() if isinstance(row.sizes, ViTSizes)]
    for row in rows:
        if (row.hidden_size, row.num_layers) == (width, layers):
            return row.num_heads
    known = sorted({(row.hidden_size, row.num_layers) for row in rows})
    raise CheckpointError(
        "patch_embed.proj.weight: timm's files do not hold the number of heads, expected the width "
        f"and layers of a known ViT, {known}, found {(width, layers)}"
    )
