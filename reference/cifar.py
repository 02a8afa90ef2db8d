"""CIFAR-10 and CIFAR-100 as their authors publish them.

In: the file `cifar-10-python.tar.gz` or `cifar-100-python.tar.gz`. Out: uint8 images
[N, 32, 32, 3], int32 labels [N], the names of the classes. From the pickles in the archive only
arrays are loaded.
"""

import dataclasses
import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class ArchiveError(ValueError):
    """The file is not the expected archive; the message says what was found."""


class _ArraysOnly(pickle.Unpickler):
    """Unpickles the classes in CIFAR's batches and no others, since a pickle can run any code."""

    _allowed = frozenset(
        {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
    )

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}")
        # The published files name a module that NumPy 2 has renamed.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How one of the two archives names its parts."""

    archive: str
    splits: dict[str, str]  # split: the prefix of its batches' names
    meta: str
    labels: bytes
    names: bytes


_LAYOUTS = (
    _Layout(
        "cifar-10-python.tar.gz",
        {"train": "data_batch_", "test": "test_batch"},
        "batches.meta",
        b"labels",
        b"label_names",
    ),
    _Layout(
        "cifar-100-python.tar.gz",
        {"train": "train", "test": "test"},
        "meta",
        b"fine_labels",
        b"fine_label_names",
    ),
)
EXPECTED = " or ".join(layout.archive for layout in _LAYOUTS)


def read(
    path: Path, split: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], tuple[str, ...]]:
    """Images, labels and classes of `split` ("train" or "test"); raises ArchiveError."""
    if split not in ("train", "test"):
        raise ArchiveError(f"{path}: has the splits train and test, not {split!r}")
    try:
        if not tarfile.is_tarfile(path):
            raise ArchiveError(
                f"{path}: expected a folder with {split}/<class>/*.jpg, or {EXPECTED}; this file "
                "is no tar archive"
            )
        with tarfile.open(path) as archive:
            batches = dict(_batches(archive))
    except (tarfile.TarError, EOFError, OSError, zlib.error, pickle.UnpicklingError) as error:
        raise ArchiveError(f"{path}: expected {EXPECTED}, found {error}") from error
    for layout in _LAYOUTS:
        prefix = layout.splits[split]
        wanted = [batch for name, batch in sorted(batches.items()) if name.startswith(prefix)]
        if wanted and layout.meta in batches:
            classes = tuple(name.decode() for name in batches[layout.meta][layout.names])
            planes = np.concatenate([batch[b"data"] for batch in wanted]).reshape(-1, 3, 32, 32)
            labels = np.concatenate([batch[layout.labels] for batch in wanted]).astype(np.int32)
            return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels, classes
    raise ArchiveError(
        f"{path}: expected {EXPECTED} with the batches of {split} inside; a folder tree in an "
        "archive must be unpacked first"
    )


def _batches(archive: tarfile.TarFile) -> Iterator[tuple[str, dict[bytes, Any]]]:
    for member in archive:
        name = Path(member.name).name
        file = archive.extractfile(member) if member.isfile() else None
        known = name.startswith(("data_batch_", "test_batch")) or name in (
            *("batches.meta", "meta", "train", "test"),
        )
        if file and known:
            yield name, _unpickled(name, file.read())
    # tarfile takes a damaged header for the end of the archive. The checksum is at the real end.
    while archive.fileobj is not None and archive.fileobj.read(2**20):
        pass


def _unpickled(name: str, content: bytes) -> dict[bytes, Any]:
    try:
        found: dict[bytes, Any] = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise pickle.UnpicklingError(f"{name} damaged: {error!r}") from error
    return found
