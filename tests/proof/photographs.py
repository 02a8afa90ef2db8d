"""The photographs that a proof looks at, and the class of each.

In: a folder with `photos-classes.tsv` within or beside it (`file`, `imagenet1k_index`), or
ImageNet's validation set as torchvision reads it: a folder for each of the 1,000 synsets. Out: the
files, evenly chosen, each with the index of its class.
"""

import csv
from pathlib import Path

import numpy as np

CLASSES = 1000
SUFFIXES = {".jpeg", ".jpg", ".png"}


class NoPhotographsError(ValueError):
    """The folder is neither; the message says what was expected."""


def truths(folder: Path, most: int) -> dict[Path, int]:
    """At most `most` photographs, with the indices of their classes. Raises NoPhotographsError."""
    for table in (folder / "photos-classes.tsv", folder.parent / "photos-classes.tsv"):
        if table.is_file():
            with table.open(encoding="utf-8") as file:
                rows = csv.DictReader(file, delimiter="\t")
                found = {folder / row["file"]: int(row["imagenet1k_index"]) for row in rows}
            return _some(found, most)
    # The order of the synsets' names is that of the classes: ILSVRC 2012.
    synsets = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(synsets) != CLASSES:
        raise NoPhotographsError(
            f"{folder}: expected photos-classes.tsv in it or beside it, or the {CLASSES} folders "
            f"of ImageNet's validation set, found {len(synsets)} folders"
        )
    return _some(
        {
            path: index
            for index, synset in enumerate(synsets)
            for path in sorted(synset.iterdir())
            if path.suffix.lower() in SUFFIXES
        },
        most,
    )


def _some(found: dict[Path, int], most: int) -> dict[Path, int]:
    paths = list(found)
    if not paths:
        raise NoPhotographsError("expected photographs, found none")
    chosen = sorted({round(each) for each in np.linspace(0, len(paths) - 1, most)})
    return {paths[index]: found[paths[index]] for index in chosen}
