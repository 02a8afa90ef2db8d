"""CIFAR-10 as its authors publish it.

In: the file `cifar-10-python.tar.gz`. Out: uint8 images [N, 32, 32, 3], int32 labels [N], the names
of the classes. Of the pickles inside, nothing but arrays is ever loaded.
"""

import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class ArchiveError(ValueError):
    """The file is not that archive; the message says what it is."""


class _ArraysOnly(pickle.Unpickler):
    """Unpickles what CIFAR-10's batches hold, and no other class: a pickle can run any code."""

    _allowed = frozenset(
        {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
    )

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}")
        # NumPy 2 renamed the module that the published files name.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _batches(archive: tarfile.TarFile) -> Iterator[tuple[str, dict[bytes, Any]]]:
    for member in archive:
        name = Path(member.name).name
        file = archive.extractfile(member) if member.isfile() else None
        if file and (name.startswith(("data_batch_", "test_batch")) or name == "batches.meta"):
            yield name, _ArraysOnly(io.BytesIO(file.read()), encoding="bytes").load()


def read(
    path: Path, split: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], tuple[str, ...]]:
    """Images, labels and classes of `split` ("train" or "test"); raises ArchiveError."""
    prefix = {"train": "data_batch_", "test": "test_batch"}.get(split)
    if prefix is None:
        raise ArchiveError(f"{path}: has the splits train and test, not {split!r}")
    try:
        with tarfile.open(path) as archive:
            batches = dict(_batches(archive))
    except (tarfile.TarError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ArchiveError(f"{path}: expected cifar-10-python.tar.gz, found {error}") from error
    wanted = [batch for name, batch in sorted(batches.items()) if name.startswith(prefix)]
    if not wanted or "batches.meta" not in batches:
        raise ArchiveError(
            f"{path}: expected cifar-10-python.tar.gz with {prefix}* and batches.meta inside; a "
            "folder tree in an archive must be unpacked first"
        )
    classes = tuple(name.decode() for name in batches["batches.meta"][b"label_names"])
    planes = np.concatenate([batch[b"data"] for batch in wanted]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([batch[b"labels"] for batch in wanted]).astype(np.int32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels, classes
