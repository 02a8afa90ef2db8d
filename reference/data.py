"""Pictures for training and evaluation, as arrays in memory.

In: a folder tree `SPLIT/<class>/*.jpg` (any format that Pillow reads), or the archive
`cifar-10-python.tar.gz` as its authors publish it. Out: uint8 images [N, H, W, 3] and int32 labels
[N], with the names of the classes. Files that are no pictures are named and skipped, or refused.
"""

import dataclasses
import io
import logging
import pickle
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
DECODE_THREADS = 4

_log = logging.getLogger(__name__)


class DataError(ValueError):
    """The data cannot be used; the message names the folder or the file."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Pictures of one split."""

    images: npt.NDArray[np.uint8]  # [N, H, W, 3], RGB
    labels: npt.NDArray[np.int32]  # [N]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: npt.NDArray[np.intp]) -> "Dataset":
        """The pictures at these places, in this order."""
        return Dataset(self.images[index], self.labels[index], self.classes)


def load(source: Path, split: str, image_size: int, *, refuse_broken: bool = False) -> Dataset:
    """Read `split` ("train" or "test") of a folder tree or of the CIFAR-10 archive.

    Raises DataError where there is nothing to read, or (with `refuse_broken`) for the first file
    that is no picture; otherwise such files are logged by name and left out.
    """
    if source.is_file():
        return _load_cifar10_archive(source, split, image_size)
    return _load_folder(source / split, image_size, refuse_broken)


def split_validation(dataset: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """Hold back `count` pictures, drawn with `seed`; returns (rest, held back)."""
    if not 0 < count < len(dataset):
        raise DataError(f"cannot hold back {count} of {len(dataset)} pictures for validation")
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.take(order[count:]), dataset.take(order[:count])


def _load_folder(folder: Path, image_size: int, refuse_broken: bool) -> Dataset:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected {folder}/<class>/*.jpg")
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((folder / name).iterdir())
        if file.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise DataError(f"{folder}: no pictures; expected {folder}/<class>/*.jpg")
    images = np.empty((len(files), image_size, image_size, 3), np.uint8)
    good = np.ones(len(files), bool)

    def decode(index: int) -> None:
        path = files[index][0]
        try:
            images[index] = read_image(path, image_size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if refuse_broken:
                raise DataError(f"{path}: not a picture that can be read: {error}") from error
            _log.warning("%s: skipped, not a picture that can be read: %s", path, error)
            good[index] = False

    with ThreadPoolExecutor(DECODE_THREADS) as pool:
        decoding = pool.map(decode, range(len(files)))
        bar = Console(stderr=True)
        for _ in track(decoding, f"reading {folder}", total=len(files), console=bar):
            pass
    if not good.any():
        raise DataError(f"{folder}: not one of {len(files)} files is a picture that can be read")
    labels = np.array([label for _, label in files], np.int32)
    return Dataset(images[good], labels[good], classes)


def read_image(file: Path | IO[bytes], image_size: int) -> npt.NDArray[np.uint8]:
    """One picture, turned as its EXIF data say, as RGB, resized to a square; uint8 [H, W, 3].

    The same rule as the exported models' default: straight to the square, bilinear, antialiased.
    """
    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    if upright.size != (image_size, image_size):
        upright = upright.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(upright)


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


def _cifar10_batches(archive: tarfile.TarFile) -> Iterator[tuple[str, dict[bytes, Any]]]:
    for member in archive:
        name = Path(member.name).name
        file = archive.extractfile(member) if member.isfile() else None
        if file and (name.startswith(("data_batch_", "test_batch")) or name == "batches.meta"):
            yield name, _ArraysOnly(io.BytesIO(file.read()), encoding="bytes").load()


def _load_cifar10_archive(path: Path, split: str, image_size: int) -> Dataset:
    prefix = {"train": "data_batch_", "test": "test_batch"}[split]
    try:
        with tarfile.open(path) as archive:
            batches = dict(_cifar10_batches(archive))
    except (tarfile.TarError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise DataError(f"{path}: expected cifar-10-python.tar.gz, found {error}") from error
    wanted = [batch for name, batch in sorted(batches.items()) if name.startswith(prefix)]
    if not wanted or "batches.meta" not in batches:
        raise DataError(
            f"{path}: expected cifar-10-python.tar.gz with {prefix}* and batches.meta inside; a "
            "folder tree in an archive must be unpacked first"
        )
    classes = tuple(name.decode() for name in batches["batches.meta"][b"label_names"])
    planes = np.concatenate([batch[b"data"] for batch in wanted]).reshape(-1, 3, 32, 32)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    if image_size != 32:
        images = np.stack(
            [
                np.asarray(
                    Image.fromarray(image).resize(
                        (image_size, image_size), Image.Resampling.BILINEAR
                    )
                )
                for image in images
            ]
        )
    labels = np.concatenate([batch[b"labels"] for batch in wanted]).astype(np.int32)
    return Dataset(images, labels, classes)
