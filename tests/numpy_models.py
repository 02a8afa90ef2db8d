"""The three architectures once more, in float64 NumPy, from the papers and the published layout.

Written apart from `export` and `reference`, with other means (dense block-diagonal matrices,
sliding windows, explicit standardisation), so that an agreement says something. In: arrays by
published key and images [N, H, W, 3] in [-1, 1]. Out: logits [N, K]. Also makes and saves random
checkpoints of any size.
"""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Checkpoint = dict[str, npt.NDArray[np.float32]]

_erf = np.vectorize(math.erf)


def gelu(x: Array, form: str) -> Array:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    gate: Array = _erf(x / math.sqrt(2)) if form == "erf" else np.tanh(inner)
    return 0.5 * x * (1 + gate)


def layer_norm(x: Array, arrays: Checkpoint, name: str) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    y: Array = normal * arrays[f"{name}/scale"] + arrays[f"{name}/bias"]
    return y


def dense(x: Array, arrays: Checkpoint, name: str) -> Array:
    y: Array = x @ arrays[f"{name}/kernel"].astype(np.float64) + arrays[f"{name}/bias"]
    return y


def patches(images: Array, arrays: Checkpoint, name: str) -> Array:
    size = arrays[f"{name}/kernel"].shape[0]
    rows = [
        np.einsum(
            "nhwc,hwcd->nd",
            images[:, y : y + size, x : x + size],
            arrays[f"{name}/kernel"].astype(np.float64),
        )
        for y in range(0, images.shape[1], size)
        for x in range(0, images.shape[2], size)
    ]
    return np.stack(rows, axis=1) + arrays[f"{name}/bias"]


def mixer(arrays: Checkpoint, images: Array, form: str = "tanh") -> Array:
    return dense(mixer_features(arrays, images, form), arrays, "head")


def mixer_features(arrays: Checkpoint, images: Array, form: str = "tanh") -> Array:
    """What the head is given, [N, D].

    At K times the resolution: the paper's dense block-diagonal matrices (appendix C).
    """
    x = patches(images, arrays, "stem")
    tokens = arrays["MixerBlock_0/token_mixing/Dense_0/kernel"].shape[0]
    g, k = math.isqrt(tokens), math.isqrt(x.shape[1] // tokens)
    raster = np.arange(x.shape[1])
    row, column = raster // (g * k), raster % (g * k)
    tiled = ((row // g) * k + column // g) * tokens + (row % g) * g + column % g
    for block in range(sum(key.endswith("LayerNorm_0/scale") for key in arrays)):
        name = f"MixerBlock_{block}"
        w1, b1, w2, b2 = (
            arrays[f"{name}/token_mixing/Dense_{i}/{leaf}"].astype(np.float64)
            for i in (0, 1)
            for leaf in ("kernel", "bias")
        )
        eye = np.eye(k * k)
        y = layer_norm(x, arrays, f"{name}/LayerNorm_0").transpose(0, 2, 1)
        y = gelu(y @ np.kron(eye, w1)[tiled] + np.tile(b1, k * k), form)
        y = y @ np.kron(eye, w2)[:, tiled] + np.tile(b2, k * k)[tiled]
        x = x + y.transpose(0, 2, 1)
        y = gelu(
            dense(
                layer_norm(x, arrays, f"{name}/LayerNorm_1"),
                arrays,
                f"{name}/channel_mixing/Dense_0",
            ),
            form,
        )
        x = x + dense(y, arrays, f"{name}/channel_mixing/Dense_1")
    features: Array = layer_norm(x, arrays, "pre_head_layer_norm").mean(1)
    return features


def vit(arrays: Checkpoint, images: Array, form: str = "tanh") -> Array:
    x = patches(images, arrays, "embedding")
    if "cls" in arrays:
        cls = np.broadcast_to(arrays["cls"].astype(np.float64), (len(x), 1, x.shape[-1]))
        x = np.concatenate([cls, x], axis=1)
    x = x + arrays["Transformer/posembed_input/pos_embedding"]
    for block in range(sum(key.endswith("LayerNorm_0/scale") for key in arrays)):
        name = f"Transformer/encoderblock_{block}"
        attention = f"{name}/MultiHeadDotProductAttention_1"
        y = layer_norm(x, arrays, f"{name}/LayerNorm_0")
        q, k, v = (
            np.einsum("nsd,dhe->nhse", y, arrays[f"{attention}/{part}/kernel"].astype(np.float64))
            + arrays[f"{attention}/{part}/bias"][None, :, None, :]
            for part in ("query", "key", "value")
        )
        scores = np.einsum("nhse,nhte->nhst", q, k) / math.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        out = arrays[f"{attention}/out/kernel"].astype(np.float64)
        x = x + np.einsum("nhst,nhte,hed->nsd", scores, v, out) + arrays[f"{attention}/out/bias"]
        y = layer_norm(x, arrays, f"{name}/LayerNorm_2")
        y = gelu(dense(y, arrays, f"{name}/MlpBlock_3/Dense_0"), form)
        x = x + dense(y, arrays, f"{name}/MlpBlock_3/Dense_1")
    x = layer_norm(x, arrays, "Transformer/encoder_norm")
    y = x[:, 0] if "cls" in arrays else x.mean(1)
    if "pre_logits/kernel" in arrays:
        y = np.tanh(dense(y, arrays, "pre_logits"))
    return dense(y, arrays, "head")


def bit(arrays: Checkpoint, images: Array, epsilon: float = 1e-10) -> Array:
    def conv(x: Array, scope: str, stride: int = 1) -> Array:
        kernel = arrays[f"{scope}/standardized_conv2d/kernel"].astype(np.float64)
        flat = kernel.reshape(-1, kernel.shape[-1])
        kernel = (kernel - flat.mean(0)) / np.sqrt(flat.var(0) + epsilon)
        size = kernel.shape[0]
        pad = (size // 2, size // 2)
        x = np.pad(x, ((0, 0), pad, pad, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
        windows = windows[:, ::stride, ::stride]
        y: Array = np.einsum("nyxchw,hwcd->nyxd", windows, kernel, optimize=True)
        return y

    def norm_relu(x: Array, scope: str) -> Array:
        n, h, w, c = x.shape
        groups = x.reshape(n, h * w, 32, c // 32)
        mean = groups.mean((1, 3), keepdims=True)
        variance = groups.var((1, 3), keepdims=True)
        normal = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
        gamma, beta = arrays[f"{scope}/group_norm/gamma"], arrays[f"{scope}/group_norm/beta"]
        y: Array = np.maximum(normal * gamma + beta, 0)
        return y

    x = np.pad(conv(images, "resnet/root_block", 2), ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max((-1, -2))
    units = sorted(key.split("/a/")[0] for key in arrays if key.endswith("/a/group_norm/gamma"))
    for unit in units:
        y = norm_relu(x, f"{unit}/a")
        first = unit.endswith("unit01")
        stride = 2 if first and "/block1/" not in unit else 1
        skip = conv(y, f"{unit}/a/proj", stride) if first else x
        y = conv(y, f"{unit}/a")
        y = conv(norm_relu(y, f"{unit}/b"), f"{unit}/b", stride)
        x = skip + conv(norm_relu(y, f"{unit}/c"), f"{unit}/c")
    x = norm_relu(x, "resnet").mean((1, 2))
    head = arrays["resnet/head/conv2d/kernel"].astype(np.float64)[0, 0]
    logits: Array = x @ head + arrays["resnet/head/conv2d/bias"]
    return logits


def fill(shapes: dict[str, tuple[int, ...]], seed: int) -> Checkpoint:
    """Random values, none of them an identity: every parameter moves the logits, where any can."""
    random = np.random.default_rng(seed)
    arrays: Checkpoint = {}
    for key, shape in shapes.items():
        values = random.normal(0, 0.2, shape)
        if key.endswith(("scale", "gamma")):
            values += 1
        elif key.endswith("kernel"):
            values *= 5 / math.sqrt(math.prod(shape) / shape[-1])
        arrays[key] = values.astype(np.float32)
    return arrays


def _dense(shapes: dict[str, tuple[int, ...]], name: str, *kernel: int) -> None:
    shapes[f"{name}/kernel"], shapes[f"{name}/bias"] = kernel, kernel[-1:]


def _norm(shapes: dict[str, tuple[int, ...]], name: str, width: int) -> None:
    shapes[f"{name}/scale"] = shapes[f"{name}/bias"] = (width,)


class MixerSizes(NamedTuple):
    patch: int
    width: int
    blocks: int
    d_s: int
    d_c: int
    grid: int
    classes: int


class ViTSizes(NamedTuple):
    patch: int
    width: int
    layers: int
    heads: int
    mlp: int
    grid: int
    token: bool = True
    representation: int = 0
    classes: int = 6


def save(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> Path:
    """An `.npz`, as np.savez writes it."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w") as member:
                np.lib.format.write_array(member, array)
    return path


def mixer_checkpoint(sizes: MixerSizes, seed: int = 0) -> Checkpoint:
    patch, width, blocks, d_s, d_c, grid, classes = sizes
    shapes: dict[str, tuple[int, ...]] = {}
    _dense(shapes, "stem", patch, patch, 3, width)
    for block in range(blocks):
        name = f"MixerBlock_{block}"
        _norm(shapes, f"{name}/LayerNorm_0", width)
        _norm(shapes, f"{name}/LayerNorm_1", width)
        _dense(shapes, f"{name}/token_mixing/Dense_0", grid * grid, d_s)
        _dense(shapes, f"{name}/token_mixing/Dense_1", d_s, grid * grid)
        _dense(shapes, f"{name}/channel_mixing/Dense_0", width, d_c)
        _dense(shapes, f"{name}/channel_mixing/Dense_1", d_c, width)
    _norm(shapes, "pre_head_layer_norm", width)
    _dense(shapes, "head", width, classes)
    return fill(shapes, seed)


def vit_checkpoint(sizes: ViTSizes, seed: int = 0) -> Checkpoint:
    patch, width, layers, heads, mlp, grid, token, representation, classes = sizes
    shapes: dict[str, tuple[int, ...]] = {}
    _dense(shapes, "embedding", patch, patch, 3, width)
    if token:
        shapes["cls"] = (1, 1, width)
    shapes["Transformer/posembed_input/pos_embedding"] = (1, grid * grid + token, width)
    for layer in range(layers):
        name = f"Transformer/encoderblock_{layer}"
        _norm(shapes, f"{name}/LayerNorm_0", width)
        _norm(shapes, f"{name}/LayerNorm_2", width)
        attention = f"{name}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes[f"{attention}/{part}/kernel"] = (width, heads, width // heads)
            shapes[f"{attention}/{part}/bias"] = (heads, width // heads)
        _dense(shapes, f"{attention}/out", heads, width // heads, width)
        _dense(shapes, f"{name}/MlpBlock_3/Dense_0", width, mlp)
        _dense(shapes, f"{name}/MlpBlock_3/Dense_1", mlp, width)
    _norm(shapes, "Transformer/encoder_norm", width)
    if representation:
        _dense(shapes, "pre_logits", width, representation)
    _dense(shapes, "head", representation or width, classes)
    return fill(shapes, seed)


def bit_checkpoint(units: tuple[int, ...], root: int, classes: int, seed: int = 0) -> Checkpoint:
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        shapes[f"{name}/group_norm/gamma"] = shapes[f"{name}/group_norm/beta"] = (channels,)

    def conv(name: str, size: int, inputs: int, outputs: int) -> None:
        shapes[f"{name}/standardized_conv2d/kernel"] = (size, size, inputs, outputs)

    conv("resnet/root_block", 7, 3, root)
    middle = channels = root
    for block, count in enumerate(units, 1):
        for unit in range(1, count + 1):
            name = f"resnet/block{block}/unit{unit:02d}"
            norm(f"{name}/a", channels)
            conv(f"{name}/a", 1, channels, middle)
            norm(f"{name}/b", middle)
            conv(f"{name}/b", 3, middle, middle)
            norm(f"{name}/c", middle)
            conv(f"{name}/c", 1, middle, 4 * middle)
            if unit == 1:
                conv(f"{name}/a/proj", 1, channels, 4 * middle)
            channels = 4 * middle
        middle *= 2
    norm("resnet", channels)
    _dense(shapes, "resnet/head/conv2d", 1, 1, channels, classes)
    return fill(shapes, seed)
