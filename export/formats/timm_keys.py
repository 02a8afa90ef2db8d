"""timm's names of arrays: its files become files in the published format.

In: the arrays of a state dict of timm's Mixer, VisionTransformer or ResNetV2. Out: the same arrays
by their published names and in their published shapes. Where timm's VisionTransformer differs from
the published one, the arrays are changed so that the results stay the same: the scale of a layer is
multiplied into the weights before it, register tokens are joined to the class token, and a missing
bias becomes zeros.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from contracts.npz import Array, Arrays
from contracts.published import POSITIONS, CheckpointError, Shape, anchor, count
from contracts.variants import ViTSizes
from export.formats.rearranged import Rearranged

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
        "norm_pre": "Transformer/norm_pre",
        rf"{_BLOCK}norm1": rf"{_ENCODER}/LayerNorm_0",
        rf"{_BLOCK}norm2": rf"{_ENCODER}/LayerNorm_2",
        rf"{_BLOCK}attn\.qkv": rf"{_ATTENTION}/qkv",
        rf"{_BLOCK}attn\.(?P<part>query|key|value)": rf"{_ATTENTION}/\g<part>",
        rf"{_BLOCK}attn\.proj": rf"{_ATTENTION}/out",
        rf"{_BLOCK}mlp\.fc1": rf"{_ENCODER}/MlpBlock_3/Dense_0",
        rf"{_BLOCK}mlp\.fc2": rf"{_ENCODER}/MlpBlock_3/Dense_1",
        "norm": "Transformer/encoder_norm",
        "fc_norm": "Transformer/encoder_norm",
        r"pre_logits\.fc": "pre_logits",
        "head": "head",
    },
    "bit": {
        r"stem\.conv": "resnet/root_block/standardized_conv2d",
        "norm": "resnet/group_norm",
        r"head\.fc": "resnet/head/conv2d",
    },
}
_BIT_UNIT = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.(norm|conv|downsample\.conv)([123]?)")
# Layers of a ViT whose output is scaled, each with the name of its scale.
_SCALED = re.compile(r"(blocks\.\d+\.)(attn\.proj|mlp\.fc2)\.(weight|bias)")


def family_of(shapes: Mapping[str, Shape]) -> str | None:
    """The family of a timm file: "mixer", "vit" or "bit"; None for any other file."""
    return next((family for family, key in _SIGNATURES.items() if key in shapes), None)


def published_arrays(file: Arrays, family: str) -> Rearranged:
    """The arrays of a Mixer's or a BiT's file by their published names."""
    arrays = Rearranged(file)
    for key, shape in file.shapes.items():
        if (name := _published_name(key, family)) is not None:
            turned = tuple(shape[axis] for axis in _axes(len(shape)))
            if name == "resnet/head/conv2d/kernel" and len(shape) == 2:
                turned = (1, 1, *turned)  # the head is a dense layer in some libraries
            arrays.add(name, turned, (key,), _Maker(file, key, turned))
    return arrays


@dataclasses.dataclass(frozen=True)
class ViTArrays:
    """A ViT's arrays by their published names, and the facts that names and shapes show."""

    arrays: Rearranged
    sizes: ViTSizes
    image_size: int  # pixels per side
    num_classes: int
    prefix_tokens: int  # before the tokens of the patches: the class token and registers
    pre_norm: bool  # a LayerNorm before the first block
    norm_after_pooling: bool


def vit_arrays(file: Arrays, heads: int, *, prefix_has_positions: bool | None) -> ViTArrays:
    """Read a ViT's file, which does not hold its number of heads.

    `prefix_has_positions` says whether the class token and registers have position embeddings; if
    it is None, the number of position embeddings decides. Raises CheckpointError for impossible
    sizes.
    """
    shapes = file.shapes
    width, _, patch, _ = anchor(shapes, "patch_embed.proj.weight", "d 3 P P")
    layers = _count_blocks(shapes)
    if heads < 1 or width % heads:
        raise CheckpointError(
            f"patch_embed.proj.weight: expected a width that {heads} heads can share, found {width}"
        )
    tokens = [key for key in ("cls_token", "reg_token") if key in shapes]
    prefix = sum(anchor(shapes, key, "1 T d")[1] for key in tokens)
    positions = anchor(shapes, "pos_embed", "1 S d")[1]
    covered = _covered(positions, prefix, prefix_has_positions)
    arrays = Rearranged(file)
    for key in shapes:
        _add_vit_array(arrays, file, key, (heads, width // heads))
    if tokens:
        arrays.add("cls", (1, prefix, width), tuple(tokens), lambda: _joined(file, tokens))
    arrays.add(
        POSITIONS,
        (1, positions - covered + prefix, width),
        ("pos_embed",),
        # A token without a position embedding gets zeros.
        lambda: np.pad(file.read("pos_embed"), ((0, 0), (prefix - covered, 0), (0, 0))),
    )
    _add_missing_biases(arrays, layers, (heads, width // heads))
    sizes = ViTSizes(
        patch,
        width,
        layers,
        heads,
        anchor(shapes, "blocks.0.mlp.fc1.weight", "m d")[0],
        class_token="cls_token" in shapes,
        representation_size=shapes.get("pre_logits.fc.weight", (None,))[0],
    )
    return ViTArrays(
        arrays,
        sizes,
        image_size=math.isqrt(positions - covered) * patch,
        num_classes=anchor(shapes, "head.weight", "K d")[0],
        prefix_tokens=prefix,
        pre_norm="norm_pre.weight" in shapes,
        norm_after_pooling="fc_norm.weight" in shapes,
    )


def is_plain_vit(shapes: Mapping[str, Shape]) -> bool:
    """Whether the arrays are those of timm's first ViTs, so that only the heads are unknown.

    Every later kind that computes differently has other arrays, or lacks some.
    """
    plain = {"cls_token", "norm.weight", "blocks.0.attn.qkv.bias", "patch_embed.proj.bias"}
    other = {"fc_norm.weight", "norm_pre.weight", "reg_token", "blocks.0.ls1.gamma"}
    return plain <= shapes.keys() and not other & shapes.keys()


def _count_blocks(shapes: Mapping[str, Shape]) -> int:
    return count({key.replace(".", "/"): shape for key, shape in shapes.items()}, "blocks/")


def _covered(positions: int, prefix: int, prefix_has_positions: bool | None) -> int:
    """How many tokens of the prefix have a position embedding: all or none."""
    choices = {True: [prefix], False: [0], None: [prefix, 0]}[prefix_has_positions]
    for covered in choices:
        grid = math.isqrt(max(positions - covered, 0))
        if grid * grid == positions - covered and grid:
            return covered
    raise CheckpointError(
        f"pos_embed: expected a square number of positions, besides those of {prefix} tokens that "
        f"are no patches, found {positions}"
    )


def _add_vit_array(arrays: Rearranged, file: Arrays, key: str, split: tuple[int, int]) -> None:
    name = _published_name(key, "vit")
    if name is None:
        return
    scope, _, leaf = name.rpartition("/")
    shape = file.shapes[key]
    turned = tuple(shape[axis] for axis in _axes(len(shape)))
    width = math.prod(split)
    if scope.endswith("/qkv"):
        if shape[0] != 3 * width:
            return  # the array is not used, and the loader reports it
        for part, published in enumerate(("query", "key", "value")):
            new = (*turned[:-1], *split)
            rows = slice(part * width, (part + 1) * width)
            target = f"{scope.removesuffix('qkv')}{published}/{leaf}"
            arrays.add(target, new, (key,), _Maker(file, key, new, rows))
        return
    if re.search(r"/(query|key|value)$", scope) and turned[-1] == width:
        turned = (*turned[:-1], *split)
    if scope.endswith("/out") and len(turned) == 2 and turned[0] == width:
        turned = (*split, turned[1])
    scaled = _SCALED.fullmatch(key)
    scale = f"{scaled[1]}{'ls1' if scaled[2] == 'attn.proj' else 'ls2'}.gamma" if scaled else ""
    if file.shapes.get(scale) == shape[:1]:
        make = _Maker(file, key, turned, scale=scale)
        arrays.add(name, turned, (key, scale), make)
    else:
        arrays.add(name, turned, (key,), _Maker(file, key, turned))


def _add_missing_biases(arrays: Rearranged, layers: int, split: tuple[int, int]) -> None:
    width = math.prod(split)
    if "embedding/bias" not in arrays.shapes:
        arrays.zeros("embedding/bias", (width,))
    for layer in range(layers):
        attention = f"Transformer/encoderblock_{layer}/MultiHeadDotProductAttention_1"
        names = [f"{attention}/{part}/bias" for part in ("query", "key", "value")]
        if not any(name in arrays.shapes for name in names):
            for name in names:
                arrays.zeros(name, split)


@dataclasses.dataclass(frozen=True)
class _Maker:
    """Some rows of one of the file's arrays, scaled, transposed and in another shape."""

    file: Arrays
    key: str
    shape: Shape
    rows: slice | None = None  # None: all
    scale: str = ""  # the key of a factor for each row

    def __call__(self) -> Array:
        rows = self.rows or slice(None)
        array = self.file.read(self.key)[rows]
        if self.scale:
            factors = self.file.read(self.scale)[rows]
            array = array * factors.reshape(-1, *[1] * (array.ndim - 1))
        return array.transpose(_axes(array.ndim)).reshape(self.shape)


def _joined(file: Arrays, keys: Sequence[str]) -> Array:
    return np.concatenate([file.read(key) for key in keys], axis=1)


def _axes(ndim: int) -> tuple[int, ...]:
    """The permutation of PyTorch's axes to the published: OIHW to HWIO, [out, in] to [in, out]."""
    return {4: (2, 3, 1, 0), 2: (1, 0)}.get(ndim, tuple(range(ndim)))


def _published_name(key: str, family: str) -> str | None:
    """The published name of one of timm's arrays; None where it has none."""
    scope, _, leaf = key.rpartition(".")
    to = _published_scope(scope, family)
    if to is None or leaf not in ("weight", "bias"):
        return None
    norm = ("gamma", "beta") if family == "bit" else ("scale", "bias")
    weight, bias = norm if "norm" in scope else ("kernel", "bias")
    return f"{to}/{weight if leaf == 'weight' else bias}"


def _published_scope(scope: str, family: str) -> str | None:
    for pattern, published in _SCOPES[family].items():
        if match := re.fullmatch(pattern, scope):
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
