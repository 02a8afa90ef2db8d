"""Images for training and evaluation: all in memory, or decoded as they are needed.

In: a folder tree `SPLIT/<class>/*.jpg` (at any depth, any format that the gateway reads), or the
archive `cifar-10-python.tar.gz`. Out: a `Memory` of uint8 images [N, H, W, 3] with int32 labels
[N], or, for sets larger than memory, `Files`, which opens an image when it is asked for. Files that
are no images are named and skipped, or refused.
"""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.progress import track

from contracts.images.decoding import OWN_MAX_PIXELS, decode, open_header, probe_file, read_file
from contracts.images.errors import ImageError
from contracts.images.folders import find_classes
from contracts.resizing import ResizeRule
from reference import cifar10

GIB = 1 << 30
# Files that are no images, or only half of one, or that cannot be read.
BROKEN = (ImageError, OSError)

Read = TypeVar("Read")

_log = logging.getLogger(__name__)


class DataError(ValueError):
    """The data cannot be used; the message names the folder or the file."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Images of one split, decoded."""

    images: npt.NDArray[np.uint8]  # [N, H, W, 3], RGB
    labels: npt.NDArray[np.int32]  # [N]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> int:
        """Pixels per side."""
        return int(self.images.shape[1])

    def take(self, rows: npt.NDArray[np.intp]) -> "Memory":
        """The images at these places, in this order."""
        return Memory(self.images[rows], self.labels[rows], self.classes)

    def image(self, row: int) -> Image.Image:
        """One image, RGB, as large as it was read."""
        return Image.fromarray(self.images[row])

    def square(self, row: int) -> npt.NDArray[np.uint8]:
        """One image at the image size."""
        image: npt.NDArray[np.uint8] = self.images[row]
        return image


@dataclasses.dataclass(frozen=True)
class Files:
    """Images of one split, decoded when they are asked for; safe to ask from many threads."""

    files: tuple[Path, ...]
    labels: npt.NDArray[np.int32]  # [N]
    classes: tuple[str, ...]
    image_size: int
    broken: set[Path] = dataclasses.field(default_factory=set)  # found so far, and named

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.intp]) -> "Files":
        """The images at these places, in this order."""
        files = tuple(self.files[row] for row in rows)
        return dataclasses.replace(self, files=files, labels=self.labels[rows])

    def image(self, row: int) -> Image.Image:
        """One image, RGB, upright, at least twice as large as the image size where it was."""
        return self._first(row, lambda file: open_upright(file, 2 * self.image_size))

    def square(self, row: int) -> npt.NDArray[np.uint8]:
        """One image at the image size."""
        return self._first(row, lambda file: read_image(file, self.image_size))

    def _first(self, row: int, read: Callable[[Path], Read]) -> Read:
        # One that turns out to be broken is named, and the class's next is taken. Which one that is
        # depends on the files alone, so a resumed run reads the same.
        for step in range(len(self.files)):
            other = (row + step) % len(self.files)
            file = self.files[other]
            if self.labels[other] != self.labels[row] or file in self.broken:
                continue
            try:
                return read(file)
            except BROKEN as error:
                self.broken.add(file)
                _log.warning("%s: replaced by another, not an image: %s", file, error)
        raise DataError(f"{self.files[row].parent}: no image in it can be read any more")


Dataset = Memory | Files


def load(
    source: Path,
    split: str,
    image_size: int,
    *,
    refuse_broken: bool = False,
    memory_gib: float = 4.0,
    as_files: bool = False,
    workers: int = 0,
    listed: Callable[[int], object] = lambda _: None,
) -> Dataset:
    """Read `split` ("train" or "test") of a folder tree or of the CIFAR-10 archive.

    A folder of more than `memory_gib` (decoded), or any with `as_files`, comes as `Files`. Before
    the first file of a folder is opened, `listed` is told how many there are; it may raise. Raises
    DataError where there is nothing to read, or (with `refuse_broken`) for the first file that is
    no image; otherwise such files are logged by name and left out.
    """
    if source.is_file():
        try:
            images, labels, classes = cifar10.read(source, split)
        except cifar10.ArchiveError as error:
            raise DataError(str(error)) from error
        if image_size != images.shape[1]:
            images = np.stack(
                [np.asarray(shrink(Image.fromarray(image), image_size)) for image in images]
            )
        return Memory(images, labels, classes)
    files, labels, classes = find(source / split)
    listed(len(files))
    lazy = as_files or len(files) * image_size**2 * 3 > memory_gib * GIB
    images = np.empty((0 if lazy else len(files), image_size, image_size, 3), np.uint8)
    good = np.ones(len(files), bool)

    def read(index: int) -> None:
        try:
            if not lazy:
                images[index] = read_image(files[index], image_size)
            elif refuse_broken:  # which takes as long as one epoch's reading
                read_image(files[index], image_size)
            else:
                probe_file(files[index])
        except BROKEN as error:
            what = f"{files[index]}: not an image that can be read: {error}"
            if refuse_broken:
                raise DataError(what) from error
            _log.warning("skipped %s", what)
            good[index] = False

    _for_all(read, range(len(files)), f"reading {source / split}", workers)
    if not good.any():
        raise DataError(f"{source / split}: not one of {len(files)} files is an image")
    if lazy:
        whole = Files(tuple(files), labels, classes, image_size)
        return whole if good.all() else whole.take(np.flatnonzero(good))
    return (
        Memory(images, labels, classes)
        if good.all()
        else Memory(images[good], labels[good], classes)
    )


def find(folder: Path) -> tuple[list[Path], npt.NDArray[np.int32], tuple[str, ...]]:
    """The files of `folder/<class>/`, with the number of the class of each, and the classes."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected {folder}/<class>/*.jpg")
    found = find_classes(folder)
    left_out = str(found.left_out)
    if not found.files:
        hint = f" (left out: {left_out})" if left_out else ""
        raise DataError(f"{folder}: no images; expected {folder}/<class>/*.jpg{hint}")
    _log.info("%s: %d images of %s", folder, len(found.files), found.summary())
    if left_out:
        _log.info("%s: left out %s", folder, left_out)
    return list(found.files), np.array(found.labels, np.int32), found.classes


def survey(source: "Path | Dataset", split: str) -> tuple[int, int]:
    """How many images a split has, and how many pixels its first one has; opens no other."""
    if not isinstance(source, Path):
        return len(source), source.image_size**2
    if source.is_file():
        images = load(source, split, 32)
        return len(images), 32 * 32
    files, _, _ = find(source / split)
    try:
        header = open_header(files[0].read_bytes(), OWN_MAX_PIXELS).image
    except BROKEN as error:
        raise DataError(f"{files[0]}: not an image that can be read: {error}") from error
    return len(files), header.width * header.height


def split_validation(dataset: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """Hold back `count` images, drawn with `seed`; returns (rest, held back)."""
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.take(order[count:]), dataset.take(order[:count])


def share_of(dataset: Dataset, share: float, seed: int) -> Dataset:
    """This share of each class's images, drawn with `seed`; a larger share holds the smaller."""
    if share == 1:
        return dataset
    order = np.random.default_rng((seed, 1)).permutation(len(dataset))
    kept = [
        rows[: max(1, round(share * len(rows)))]
        for rows in (order[dataset.labels[order] == label] for label in range(len(dataset.classes)))
        if len(rows)
    ]
    return dataset.take(np.sort(np.concatenate(kept)))


def open_upright(file: Path, at_least: int) -> Image.Image:
    """One image, turned as its EXIF data say, RGB; large JPEGs are decoded at a fraction of their
    size that leaves both sides at least `at_least` pixels long."""
    return decode(open_header(file.read_bytes(), OWN_MAX_PIXELS), at_least).image


def shrink(image: Image.Image, image_size: int) -> Image.Image:
    """Straight to a square, bilinear, antialiased: the exported models' default rule."""
    if image.size == (image_size, image_size):
        return image
    return Image.fromarray(ResizeRule(image_size, image_size).apply(image))


def read_image(file: Path, image_size: int) -> npt.NDArray[np.uint8]:
    """One image as RGB, upright, resized to a square; uint8 [H, W, 3]: what the gateway makes of
    the file for a model with the default rule."""
    return read_file(file, ResizeRule(image_size, image_size))


def _for_all(work: Callable[[int], None], rows: Iterable[int], title: str, workers: int) -> None:
    rows = list(rows)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        bar = Console(stderr=True)
        for _ in track(pool.map(work, rows), title, total=len(rows), console=bar):
            pass
