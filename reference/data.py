"""Images for training and evaluation: all in memory, or decoded when they are needed.

In: a folder tree `SPLIT/<class>/*.jpg` (at any depth, any format that the gateway reads),
WebDataset's tar files, or the archive of CIFAR-10 or CIFAR-100. Out: a `Memory` of uint8 images
[N, H, W, 3] with int32 labels [N], or, for sets larger than memory, `Files`, which opens an image
when it is requested. A file that is no image is logged by name and skipped or replaced, or refused.
"""

import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.progress import track

from contracts.counting import counted
from contracts.images.decoding import OWN_MAX_PIXELS, decode, open_header, read
from contracts.images.folders import find_classes
from contracts.resizing import ResizeRule
from reference import cifar, webdataset
from reference.classes import BROKEN, Item, empty, look, rows_by_class, unreadable

GIB = 1 << 30
# Lists of images, SPLIT.txt; VTAB-1k trains on the 1,000 images of `train800val200`.
LISTS = {"train": ("train", "train800val200")}

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
        """One image, RGB, in the size in which it was read."""
        return Image.fromarray(self.images[row])

    def square(self, row: int) -> npt.NDArray[np.uint8]:
        """One image at the image size."""
        image: npt.NDArray[np.uint8] = self.images[row]
        return image


class Decoded:
    """The number of decoded images, and the images that are kept; safe to use from many threads."""

    def __init__(self) -> None:
        self.count = 0
        self.kept: dict[Item, npt.NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def add(self) -> None:
        """Count one."""
        with self._lock:
            self.count += 1


@dataclasses.dataclass(frozen=True)
class Files:
    """Images of one split, decoded when they are requested; safe to use from many threads."""

    files: tuple[Item, ...]
    labels: npt.NDArray[np.int32]  # [N]
    classes: tuple[str, ...]
    rule: ResizeRule
    keep: bool = False  # whether decoded images at the image size are kept
    # The files found and logged so far, and why each is no image.
    broken: dict[Item, str] = dataclasses.field(default_factory=dict)
    decoded: Decoded = dataclasses.field(default_factory=Decoded)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> int:
        """Pixels per side."""
        return self.rule.height

    def take(self, rows: npt.NDArray[np.intp]) -> "Files":
        """The images at these places, in this order."""
        files = tuple(self.files[row] for row in rows)
        return dataclasses.replace(self, files=files, labels=self.labels[rows])

    def image(self, row: int) -> Image.Image:
        """One image, RGB, upright; a larger one is decoded at no less than twice the image size."""
        return self._first(row, lambda file: open_upright(file, 2 * self.image_size))

    def square(self, row: int) -> npt.NDArray[np.uint8]:
        """One image at the image size."""
        kept = self.decoded.kept.get(self.files[row])
        if kept is None:
            kept = self._first(row, lambda file: read(file.read_bytes(), self.rule))
            if self.keep:
                self.decoded.kept[self.files[row]] = kept
        return kept

    def _first(self, row: int, open_: Callable[[Item], Read]) -> Read:
        # A broken file is logged by name, and the next file of its class is read instead. The
        # choice depends on the files alone, so a resumed run reads the same images.
        for step in range(len(self.files)):
            other = (row + step) % len(self.files)
            file = self.files[other]
            if self.labels[other] != self.labels[row] or file in self.broken:
                continue
            try:
                found = open_(file)
            except BROKEN as error:
                self.broken[file] = str(error)
                _log.warning("%s: replaced by another, not an image: %s", file, error)
            else:
                self.decoded.add()
                return found
        label = self.labels[row]
        own = [self.files[index] for index in np.flatnonzero(self.labels == label)]
        why = unreadable(own, self.broken[own[0]])
        raise DataError(f"{self.classes[label]!r} cannot be a class: {why}")


Dataset = Memory | Files


def load(
    source: Path,
    split: str,
    image_size: int,
    *,
    rule: ResizeRule | None = None,
    refuse_broken: bool = False,
    memory_gib: float = 4.0,
    as_files: bool = False,
    workers: int = 0,
    listed: Callable[[int], object] = lambda _: None,
    every_class: bool = False,
) -> Dataset:
    """Read `split` ("train" or "test") of a folder tree, of tar files, or of CIFAR's archive.

    Images are resized by `rule`; without one, straight to a square. A folder of more than
    `memory_gib` (decoded), or any with `as_files`, is returned as `Files`, and no file is opened
    yet; with `every_class`, those of each class up to the first image. Before the first file of a
    folder is opened, `listed` gets the number of files; it may raise. Raises DataError if there is
    nothing to read, or (with `refuse_broken`) for the first file that is no image. Without
    `refuse_broken` such files are logged by name and left out, or replaced when they are read. A
    class folder without an image is logged; with `every_class` it raises DataError.
    """
    rule = rule or ResizeRule(image_size, image_size)
    if source.is_file():
        try:
            images, labels, classes = cifar.read(source, split)
        except cifar.ArchiveError as error:
            raise DataError(str(error)) from error
        if rule != ResizeRule(images.shape[1], images.shape[1]):
            images = np.stack([rule.apply(Image.fromarray(image)) for image in images])
        return Memory(images, labels, classes)
    files, labels, classes = find_split(source, split)
    listed(len(files))
    fits = len(files) * image_size**2 * 3 <= memory_gib * GIB
    lazy = as_files or not fits
    images = np.empty((0 if lazy else len(files), image_size, image_size, 3), np.uint8)
    good = np.ones(len(files), bool)
    reasons: dict[int, str] = {}

    def open_(index: int) -> None:
        try:
            pixels = read(files[index].read_bytes(), rule)
            if not lazy:
                images[index] = pixels
        except BROKEN as error:
            what = f"{files[index]}: not an image that can be read: {error}"
            if refuse_broken:
                raise DataError(what) from error
            _log.warning("skipped %s", what)
            good[index] = False
            reasons[index] = str(error)

    if not lazy or refuse_broken:  # for a large set this takes as long as reading in one epoch
        _for_all(open_, range(len(files)), f"reading {source / split}", workers)
    if every_class and lazy and not refuse_broken:
        rows = rows_by_class(labels, len(classes))

        def look_at(label: int) -> None:
            reasons.update(look(files, rows[label]))

        _for_all(look_at, range(len(rows)), "looking for an image of each class", workers)
    if not good.any():
        raise DataError(f"{source / split}: {unreadable(files, reasons[0])}")
    for sentence in empty(source / split, files, labels, classes, reasons):
        if every_class:
            raise DataError(f"{sentence}; remove the folder, or put images into it")
        _log.warning("%s", sentence)
    if lazy:
        return Files(tuple(files), labels, classes, rule, keep=fits)
    return (
        Memory(images, labels, classes)
        if good.all()
        else Memory(images[good], labels[good], classes)
    )


def measured_by(dataset: Dataset, rule: ResizeRule) -> Dataset:
    """The same images, resized by `rule`, with a new count; images in memory do not change."""
    if isinstance(dataset, Memory):
        return dataset
    return dataclasses.replace(dataset, rule=rule, decoded=Decoded())


def find_split(
    source: Path, split: str
) -> tuple[Sequence[Item], npt.NDArray[np.int32], tuple[str, ...]]:
    """The images of a split, in tar files or in folders; raises DataError."""
    if tars := webdataset.tar_files(source, split):
        try:
            members, labels, classes = webdataset.find(tars)
        except webdataset.TarError as error:
            raise DataError(str(error)) from error
        images, files = counted(len(members), "image"), counted(len(tars), "tar file")
        _log.info("%s: %s in %s", source, images, files)
        return members, np.array(labels, np.int32), classes
    if lists := [
        f for name in LISTS.get(split, (split,)) if (f := source / f"{name}.txt").is_file()
    ]:
        return _listed(lists[0])
    return find(source / split)


def _listed(file: Path) -> tuple[list[Path], npt.NDArray[np.int32], tuple[str, ...]]:
    """The images of a list: each line has the path of a file and the number of its class."""
    files, labels = [], []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        name, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not (name and label.isascii() and label.isdigit()):
            raise DataError(f"{file}:{number}: expected a file and the number of its class")
        files.append(file.parent / name)
        labels.append(int(label))
    if not files:
        raise DataError(f"{file}: no images in the list")
    return files, np.array(labels, np.int32), tuple(map(str, range(max(labels) + 1)))


def find(folder: Path) -> tuple[list[Path], npt.NDArray[np.int32], tuple[str, ...]]:
    """The files of `folder/<class>/`, with the number of the class of each, and the classes."""
    if not folder.is_dir():
        above = folder.parent.parent
        hint = f"; did you mean {above}?" if (above / folder.name).is_dir() else ""
        raise DataError(f"{folder}: no such folder; expected {folder}/<class>/*.jpg{hint}")
    found = find_classes(folder)
    left_out = str(found.left_out)
    if not found.files:
        hint = f" (left out: {left_out})" if left_out else ""
        raise DataError(f"{folder}: no images; expected {folder}/<class>/*.jpg{hint}")
    images = counted(len(found.files), "image")
    _log.info("%s: %s of %s", folder, images, found.summary())
    if left_out:
        _log.info("%s: left out %s", folder, left_out)
    return list(found.files), np.array(found.labels, np.int32), found.classes


def survey(source: "Path | Dataset", split: str) -> tuple[int, int]:
    """The number of images of a split, and of pixels of the first file that is an image.

    It opens no file after that one. Raises DataError if there is none.
    """
    if not isinstance(source, Path):
        return len(source), source.image_size**2
    if source.is_file():
        images = load(source, split, 32)
        return len(images), 32 * 32
    files, _, _ = find_split(source, split)
    reasons = []
    for file in files:
        try:
            header = open_header(file.read_bytes(), OWN_MAX_PIXELS)
        except BROKEN as error:  # `load` names the file, and leaves it out or ends
            reasons.append(str(error))
        else:
            return len(files), header.width * header.height
    raise DataError(f"{source / split}: {unreadable(files, reasons[0])}")


def split_validation(dataset: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """Hold back `count` images, drawn with `seed`; returns (rest, held back)."""
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.take(order[count:]), dataset.take(order[:count])


def share_of(dataset: Dataset, share: float, seed: int) -> Dataset:
    """This share of each class's images, drawn with `seed`; a larger share contains a smaller."""
    if share == 1:
        return dataset
    order = np.random.default_rng((seed, 1)).permutation(len(dataset))
    kept = [
        rows[: max(1, round(share * len(rows)))]
        for rows in (order[dataset.labels[order] == label] for label in range(len(dataset.classes)))
        if len(rows)
    ]
    return dataset.take(np.sort(np.concatenate(kept)))


def open_upright(file: Item, at_least: int) -> Image.Image:
    """One image, RGB, turned by its EXIF data.

    A large JPEG is decoded at a fraction of its size, at which both sides have at least `at_least`
    pixels.
    """
    return decode(open_header(file.read_bytes(), OWN_MAX_PIXELS), at_least).image


def shrink(image: Image.Image, image_size: int) -> Image.Image:
    """Resize straight to a square, bilinear, antialiased: the default rule of exported models."""
    if image.size == (image_size, image_size):
        return image
    return Image.fromarray(ResizeRule(image_size, image_size).apply(image))


def _for_all(work: Callable[[int], None], rows: Iterable[int], title: str, workers: int) -> None:
    rows = list(rows)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        bar = Console(stderr=True)
        for _ in track(pool.map(work, rows), title, total=len(rows), console=bar):
            pass
