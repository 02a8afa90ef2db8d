"""Classes of which there is no image: found before a network is trained to know them.

In: the files of a split, the number of the class of each, and the reasons for which files could not
be read. Out: a sentence for each class of which no file is an image.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contracts.images.decoding import OWN_MAX_PIXELS, open_header
from contracts.images.errors import ImageError
from reference import webdataset

Item = Path | webdataset.Member  # a file, or a part of a tar file
Labels = npt.NDArray[np.int32]
# The errors of files that are no images, that are incomplete, or that cannot be read.
BROKEN = (ImageError, OSError)


def rows_by_class(labels: Labels, classes: int) -> list[npt.NDArray[np.intp]]:
    """For each class the places of its files, in order."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, classes)))


def look(files: Sequence[Item], rows: npt.NDArray[np.intp]) -> dict[int, str]:
    """Why the files at these places are no images, up to the first that is one by its header."""
    reasons = {}
    for index in rows.tolist():
        try:
            open_header(files[index].read_bytes(), OWN_MAX_PIXELS)
        except BROKEN as error:
            reasons[index] = str(error)
        else:
            break
    return reasons


def empty(
    folder: Path,
    files: Sequence[Item],
    labels: Labels,
    classes: tuple[str, ...],
    reasons: Mapping[int, str],
) -> Iterator[str]:
    """A sentence for each class of which no file is an image; `reasons` has the broken files.

    A number that a list or tar files leave out is no such class.
    """
    for name, rows in zip(classes, rows_by_class(labels, len(classes)), strict=True):
        own = rows.tolist()
        if own and all(index in reasons for index in own):
            why = unreadable([files[index] for index in own], reasons[own[0]])
        elif not own and (folder / name).is_dir():
            why = f"there is no image in {folder / name}"
        else:
            continue
        yield f"{name!r} cannot be a class: {why}"


def unreadable(files: Sequence[Item], reason: str) -> str:
    """Of files none of which is an image; `reason` is that of the first."""
    if len(files) == 1:
        return f"its only file, {files[0]}, cannot be read as an image: {reason}"
    return f"not one of {len(files)} files can be read as an image; the first, {files[0]}: {reason}"
