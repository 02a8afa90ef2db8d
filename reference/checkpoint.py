"""Files of arrays in the format in which Google publishes its weights.

In: nested parameter trees of Flax. Out: the same with flat `a/b/c` keys, and `.npz` files, which
`contracts.npz` reads. Writing is atomic: the file appears whole or not at all.
"""

import contextlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from flax import traverse_util

Arrays = dict[str, npt.NDArray[Any]]


def flatten_tree(params: Mapping[str, Any]) -> dict[str, Any]:
    """A nested tree as flat `a/b/c` keys."""
    flat: dict[str, Any] = traverse_util.flatten_dict(dict(params), sep="/")
    return flat


def flatten(params: Mapping[str, Any]) -> Arrays:
    """A nested parameter tree as flat `a/b/c` keys and NumPy arrays."""
    return {key: np.asarray(value) for key, value in flatten_tree(params).items()}


def unflatten(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    nested: dict[str, Any] = traverse_util.unflatten_dict(dict(arrays), sep="/")
    return nested


def npz_name(path: Path) -> Path:
    """The name of a file that is written: with `.npz` at its end, as NumPy's `savez` does it."""
    return path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write an `.npz` file atomically."""
    # np.savez is not used, since it takes some names for its own arguments (`file`).
    with atomically(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for key, value in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomically(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[IO[bytes]]:
    """Open a file under a temporary name; at the end flush it to the disk, rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(path: Path) -> None:
    """Remove temporary files of `path` that killed processes left.

    No other process may write `path` at the same time.
    """
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):
        left_over.unlink(missing_ok=True)
