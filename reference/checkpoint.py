"""Checkpoints in the format in which Google publishes Mixer's weights.

In and out: `.npz` files with flat `a/b/c` keys and float32 arrays, and the nested parameter trees
of Flax. Reading never unpickles. Writing is atomic: the file appears whole or not at all.
"""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flax import traverse_util

from reference.mixer import MixerConfig

Arrays = dict[str, npt.NDArray[Any]]


class CheckpointError(ValueError):
    """The file is no checkpoint that this program can use; the message says what was expected."""


def flatten(params: Mapping[str, Any]) -> Arrays:
    """A nested parameter tree as flat `a/b/c` keys and NumPy arrays."""
    flat: dict[str, Any] = traverse_util.flatten_dict(dict(params), sep="/")
    return {key: np.asarray(value) for key, value in flat.items()}


def unflatten(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    nested: dict[str, Any] = traverse_util.unflatten_dict(dict(arrays), sep="/")
    return nested


def read_arrays(path: Path) -> Arrays:
    """Read every array of an `.npz` file; raises CheckpointError where that cannot be done."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path}: expected an .npz file of plain arrays, found {error}"
        ) from error


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write an `.npz` file under a temporary name, flush it to the disk, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            # Not through np.savez, which takes some names as arguments of its own (`file`).
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for key, value in arrays.items():
                    with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_mixer(path: Path) -> tuple[MixerConfig, int, dict[str, Any]]:
    """Read a Mixer checkpoint: its sizes, its number of classes, its parameters.

    The sizes are read off the arrays. Raises CheckpointError naming the key that is missing or
    left over, or the array whose shape contradicts the others.
    """
    arrays = read_arrays(path)
    prefix = "opt/target/"  # files of optimiser state keep the parameters under this key
    if any(key.startswith(prefix) for key in arrays):
        arrays = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    anchors = {
        "stem/kernel": 4,
        "MixerBlock_0/token_mixing/Dense_0/kernel": 2,
        "MixerBlock_0/channel_mixing/Dense_0/kernel": 2,
        "head/kernel": 2,
    }
    for key, rank in anchors.items():
        if key not in arrays or arrays[key].ndim != rank:
            found = f"shape {arrays[key].shape}" if key in arrays else "no such key"
            raise CheckpointError(
                f"{path}: a Mixer has {key} with {rank} dimensions; found {found}"
            )
    tokens, tokens_mlp_dim = arrays["MixerBlock_0/token_mixing/Dense_0/kernel"].shape
    patch_size, _, _, hidden_dim = arrays["stem/kernel"].shape
    num_blocks = len({k.split("/")[0] for k in arrays if k.startswith("MixerBlock_")})
    config = MixerConfig(
        patch_size=patch_size,
        hidden_dim=hidden_dim,
        num_blocks=num_blocks,
        tokens_mlp_dim=tokens_mlp_dim,
        channels_mlp_dim=arrays["MixerBlock_0/channel_mixing/Dense_0/kernel"].shape[1],
    )
    num_classes = arrays["head/kernel"].shape[1]
    expected = expected_shapes(config, num_classes, tokens)
    for key in sorted(expected.keys() | arrays.keys()):
        found = f"shape {arrays[key].shape}" if key in arrays else "no such key"
        wanted = f"shape {expected[key]}" if key in expected else "no such key"
        if found != wanted:
            raise CheckpointError(f"{path}: {key}: expected {wanted}, found {found}")
    return config, num_classes, unflatten(arrays)


def expected_shapes(
    config: MixerConfig, num_classes: int, tokens: int
) -> dict[str, tuple[int, ...]]:
    """Every key of a Mixer's checkpoint, with the shape of its array."""
    shapes: dict[str, tuple[int, ...]] = {}

    def dense(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}/kernel"] = (inputs, outputs)
        shapes[f"{name}/bias"] = (outputs,)

    def layer_norm(name: str) -> None:
        shapes[f"{name}/scale"] = shapes[f"{name}/bias"] = (config.hidden_dim,)

    shapes["stem/kernel"] = (config.patch_size, config.patch_size, 3, config.hidden_dim)
    shapes["stem/bias"] = (config.hidden_dim,)
    for index in range(config.num_blocks):
        block = f"MixerBlock_{index}"
        layer_norm(f"{block}/LayerNorm_0")
        layer_norm(f"{block}/LayerNorm_1")
        dense(f"{block}/token_mixing/Dense_0", tokens, config.tokens_mlp_dim)
        dense(f"{block}/token_mixing/Dense_1", config.tokens_mlp_dim, tokens)
        dense(f"{block}/channel_mixing/Dense_0", config.hidden_dim, config.channels_mlp_dim)
        dense(f"{block}/channel_mixing/Dense_1", config.channels_mlp_dim, config.hidden_dim)
    layer_norm("pre_head_layer_norm")
    dense("head", config.hidden_dim, num_classes)
    return shapes
