"""The format in which Google publishes Mixer, ViT and BiT: the name and shape of every array.

In: the names and shapes of a checkpoint's arrays. Out: what network the checkpoint holds, and every
array under its published name. The variant is found from the checkpoint: the user does not name it.
Sources: the published files and the code that wrote them, google-research/vision_transformer and
google-research/big_transfer.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

from contracts.variants import BiTSizes, MixerSizes, Sizes, ViTSizes

Shape = tuple[int, ...]

BIT_GROUPS = 32  # of a BiT's group normalisation
BIT_ROOT_WIDTH = 64  # channels of a BiT's root convolution, at width factor 1
POSITIONS = "Transformer/posembed_input/pos_embedding"
BIT_ROOT = "resnet/root_block/standardized_conv2d/kernel"

# The first parts of names that identify the family.
_SCOPES: dict[type[Sizes], tuple[str, ...]] = {
    MixerSizes: ("stem/", "MixerBlock_"),
    ViTSizes: ("embedding/", "Transformer/"),
    BiTSizes: ("resnet/",),
}
# Files that hold the state of an optimiser keep the parameters under this name.
_OPTIMIZER_PREFIX = "opt/target/"
# The scopes that BiT's files may number.
_NUMBERED = re.compile(r"\b(standardized_conv2d|group_norm|conv2d)_\d+\b")
# Today's Linen numbers the parts of a ViT's block by kind; the published files number all of them
# in one sequence.
_LINEN_NAMES = {
    "LayerNorm_1": "LayerNorm_2",
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
    "MlpBlock_0": "MlpBlock_3",
}
_LINEN_ONLY = ("/MlpBlock_0/", "/MultiHeadDotProductAttention_0/")


class CheckpointError(ValueError):
    """The checkpoint cannot be used; the message names the key, what was expected and found."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """What network a checkpoint holds."""

    sizes: Sizes
    image_size: int | None  # pixels per side; None for a BiT, which takes any
    num_classes: int


def published_names(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """The published name of each array, with its key in the file.

    Removes the differences between published files: the optimiser's prefix (the rest of such a file
    is ignored), the naming generation of ViT, and numbered scopes of BiT. Raises CheckpointError
    where two keys mean the same array.
    """
    prefix = _OPTIMIZER_PREFIX if any(k.startswith(_OPTIMIZER_PREFIX) for k in shapes) else ""
    linen = any(part in key for key in shapes for part in _LINEN_ONLY)
    names: dict[str, str] = {}
    for key in shapes:
        if not key.startswith(prefix):
            continue
        name = _NUMBERED.sub(r"\1", key.removeprefix(prefix))
        if linen:
            name = "/".join(_LINEN_NAMES.get(part, part) for part in name.split("/"))
        if name in names:
            raise CheckpointError(
                f"{key}: expected one array of this meaning, found also {names[name]}"
            )
        names[name] = key
    return names


def published_shape(shape: Shape) -> Shape:
    """The shape without the three axes of length 1 that some files store vectors with."""
    return shape[3:] if len(shape) == 4 and shape[:3] == (1, 1, 1) else shape


def read_contents(shapes: Mapping[str, Shape]) -> Contents:
    """Derive the network from published names and shapes, and check every one of them.

    Raises CheckpointError for an array that is missing, left over, or of another shape.
    """
    contents = _read_sizes(shapes)
    check_shapes(shapes, published_shapes(contents))
    return contents


def check_shapes(found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    """Raises CheckpointError, naming the key, unless both have the same names and shapes."""
    for key in sorted(expected.keys() | found.keys()):
        wanted = f"shape {expected[key]}" if key in expected else "no such key"
        have = f"shape {found[key]}" if key in found else "no such key"
        if wanted != have:
            raise CheckpointError(f"{key}: expected {wanted}, found {have}")


def published_shapes(contents: Contents) -> dict[str, Shape]:
    """The name and shape of every array of a network's checkpoint."""
    match contents.sizes:
        case MixerSizes() as sizes:
            return _mixer_shapes(sizes, _grid(contents), contents.num_classes)
        case ViTSizes() as sizes:
            return _vit_shapes(sizes, _grid(contents), contents.num_classes)
        case BiTSizes() as sizes:
            return _bit_shapes(sizes, contents.num_classes)


def _grid(contents: Contents) -> int:
    """Patches per side."""
    if isinstance(contents.sizes, BiTSizes) or contents.image_size is None:
        raise ValueError("only a Mixer and a ViT have patches, and these need an image size")
    return contents.image_size // contents.sizes.patch_size


def _read_sizes(shapes: Mapping[str, Shape]) -> Contents:
    for kind, read in ((MixerSizes, _read_mixer), (ViTSizes, _read_vit), (BiTSizes, _read_bit)):
        if any(key.startswith(_SCOPES[kind]) for key in shapes):
            return read(shapes)
    some = ", ".join(sorted(shapes)[:3])
    raise CheckpointError(
        "expected the keys of a Mixer (stem/kernel, MixerBlock_0/…), a ViT (embedding/kernel, "
        f"Transformer/…) or a BiT (resnet/…), found {len(shapes)} keys: {some}, …"
    )


def _read_mixer(shapes: Mapping[str, Shape]) -> Contents:
    patch_size, _, _, hidden_dim = anchor(shapes, "stem/kernel", "P P 3 C")
    tokens_key = "MixerBlock_0/token_mixing/Dense_0/kernel"
    tokens, tokens_mlp_dim = anchor(shapes, tokens_key, "S D_S")
    _, channels_mlp_dim = anchor(shapes, "MixerBlock_0/channel_mixing/Dense_0/kernel", "C D_C")
    grid = math.isqrt(tokens)
    if grid * grid != tokens:
        raise CheckpointError(f"{tokens_key}: expected a square number of tokens, found {tokens}")
    blocks = count(shapes, "MixerBlock_")
    sizes = MixerSizes(patch_size, hidden_dim, blocks, tokens_mlp_dim, channels_mlp_dim)
    return Contents(sizes, grid * patch_size, anchor(shapes, "head/kernel", "C K")[1])


def _read_vit(shapes: Mapping[str, Shape]) -> Contents:
    block = "Transformer/encoderblock_0"
    query = f"{block}/MultiHeadDotProductAttention_1/query/kernel"
    patch_size, _, _, hidden_size = anchor(shapes, "embedding/kernel", "P P 3 d")
    token = "cls" in shapes
    tokens = anchor(shapes, POSITIONS, "1 S d")[1] - token
    grid = math.isqrt(max(tokens, 0))
    if grid * grid != tokens or tokens < 1:
        and_one = " and one for cls" if token else " (there is no cls)"
        near = (1, max(grid, 1) ** 2 + token, hidden_size)
        raise CheckpointError(
            f"{POSITIONS}: expected a square number of positions{and_one}, as {near}, "
            f"found shape {shapes[POSITIONS]}"
        )
    _, heads, head_width = anchor(shapes, query, "d h e")
    if heads * head_width != hidden_size:
        raise CheckpointError(
            f"{query}: expected heads × width of a head = {hidden_size}, "
            f"found shape {shapes[query]}"
        )
    representation_size = None
    if any(key.startswith("pre_logits/") for key in shapes):
        representation_size = anchor(shapes, "pre_logits/kernel", "d R")[1]
    sizes = ViTSizes(
        patch_size,
        hidden_size,
        num_layers=count(shapes, "Transformer/encoderblock_"),
        num_heads=heads,
        mlp_dim=anchor(shapes, f"{block}/MlpBlock_3/Dense_0/kernel", "d m")[1],
        class_token=token,
        representation_size=representation_size,
    )
    return Contents(sizes, grid * patch_size, anchor(shapes, "head/kernel", "d K")[1])


def _read_bit(shapes: Mapping[str, Shape]) -> Contents:
    width = anchor(shapes, BIT_ROOT, "7 7 3 64w")[-1]
    if width % BIT_GROUPS:
        raise CheckpointError(
            f"{BIT_ROOT}: expected a multiple of {BIT_GROUPS} channels, found {width}"
        )
    blocks = count(shapes, "resnet/block", first=1)
    units = tuple(count(shapes, f"resnet/block{b + 1}/unit", first=1) for b in range(blocks))
    classes = anchor(shapes, "resnet/head/conv2d/kernel", "1 1 C K")[-1]
    return Contents(BiTSizes(units, width / BIT_ROOT_WIDTH), None, classes)


def _mixer_shapes(sizes: MixerSizes, grid: int, classes: int) -> dict[str, Shape]:
    patch, width, tokens = sizes.patch_size, sizes.hidden_dim, grid * grid
    shapes = _layer("stem", (patch, patch, 3, width))
    for index in range(sizes.num_blocks):
        block = f"MixerBlock_{index}"
        shapes |= _norm(f"{block}/LayerNorm_0", width) | _norm(f"{block}/LayerNorm_1", width)
        shapes |= _mlp(f"{block}/token_mixing", tokens, sizes.tokens_mlp_dim)
        shapes |= _mlp(f"{block}/channel_mixing", width, sizes.channels_mlp_dim)
    return shapes | _norm("pre_head_layer_norm", width) | _layer("head", (width, classes))


def _vit_shapes(sizes: ViTSizes, grid: int, classes: int) -> dict[str, Shape]:
    patch, width, heads = sizes.patch_size, sizes.hidden_size, sizes.num_heads
    split = (heads, width // heads)
    shapes = _layer("embedding", (patch, patch, 3, width))
    shapes |= {POSITIONS: (1, grid * grid + sizes.class_token, width)}
    if sizes.class_token:
        shapes |= {"cls": (1, 1, width)}
    for index in range(sizes.num_layers):
        block = f"Transformer/encoderblock_{index}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes |= _layer(f"{attention}/{part}", (width, *split), split)
        shapes |= _layer(f"{attention}/out", (*split, width))
        shapes |= _norm(f"{block}/LayerNorm_0", width) | _norm(f"{block}/LayerNorm_2", width)
        shapes |= _mlp(f"{block}/MlpBlock_3", width, sizes.mlp_dim)
    shapes |= _norm("Transformer/encoder_norm", width)
    represented = width
    if sizes.representation_size is not None:
        represented = sizes.representation_size
        shapes |= _layer("pre_logits", (width, represented))
    return shapes | _layer("head", (represented, classes))


def _bit_shapes(sizes: BiTSizes, classes: int) -> dict[str, Shape]:
    middle = inputs = round(BIT_ROOT_WIDTH * sizes.width_factor)
    shapes: dict[str, Shape] = {BIT_ROOT: (7, 7, 3, inputs)}
    for number, units in enumerate(sizes.block_units, start=1):
        for unit in range(1, units + 1):
            scope = f"resnet/block{number}/unit{unit:02d}"
            kernels = (1, 1, inputs, middle), (3, 3, middle, middle), (1, 1, middle, 4 * middle)
            for part, kernel in zip("abc", kernels, strict=True):
                shapes |= {f"{scope}/{part}/standardized_conv2d/kernel": kernel}
                shapes |= _norm(f"{scope}/{part}/group_norm", kernel[2], "gamma", "beta")
            if unit == 1:  # only there the skip connection needs a projection
                proj = f"{scope}/a/proj/standardized_conv2d/kernel"
                shapes |= {proj: (1, 1, inputs, 4 * middle)}
            inputs = 4 * middle
        middle *= 2
    shapes |= _norm("resnet/group_norm", inputs, "gamma", "beta")
    return shapes | _layer("resnet/head/conv2d", (1, 1, inputs, classes))


def _layer(scope: str, kernel: Shape, bias: Shape | None = None) -> dict[str, Shape]:
    return {f"{scope}/kernel": kernel, f"{scope}/bias": bias or kernel[-1:]}


def _norm(scope: str, width: int, scale: str = "scale", shift: str = "bias") -> dict[str, Shape]:
    return {f"{scope}/{scale}": (width,), f"{scope}/{shift}": (width,)}


def _mlp(scope: str, width: int, hidden: int) -> dict[str, Shape]:
    return _layer(f"{scope}/Dense_0", (width, hidden)) | _layer(f"{scope}/Dense_1", (hidden, width))


def anchor(shapes: Mapping[str, Shape], key: str, form: str) -> Shape:
    """The shape of an array that gives sizes; `form` names its axes, for example "P P 3 C".

    Raises CheckpointError where the array is missing or has another number of axes, an axis of
    length zero, or another length than a number in `form` says.
    """
    axes = form.split()
    shape = shapes.get(key, ())
    if len(shape) != len(axes) or any(
        size != int(axis) if axis.isdecimal() else size < 1
        for size, axis in zip(shape, axes, strict=True)
    ):
        found = f"shape {shape}" if key in shapes else "no such key"
        raise CheckpointError(f"{key}: expected an array [{', '.join(axes)}], found {found}")
    return shape


def count(shapes: Mapping[str, Shape], prefix: str, first: int = 0) -> int:
    """How many scopes `prefix0/`, `prefix1/`, … a checkpoint has; at least one.

    Raises CheckpointError if the numbers are not consecutive from `first`.
    """
    names = {key.removeprefix(prefix).split("/")[0] for key in shapes if key.startswith(prefix)}
    numbers = {int(name) for name in names if name.isdecimal() and len(name) < 7}
    found = sorted(numbers)
    if not found or found != list(range(first, first + len(found))):
        raise CheckpointError(
            f"{prefix}*: expected scopes numbered from {first} without a gap, "
            f"found the numbers {found[:8]}{'…' if len(found) > 8 else ''}"
        )
    return len(found)
