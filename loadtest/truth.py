"""The right classes of each image: from a folder tree, or from ImageNet's validation set.

In: folders and files. Out: images with the numbers of the classes that count as right. An image may
have several right classes (ReaL labels). An image without one is left out.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from contracts.counting import counted, some_of
from contracts.images.folders import find_classes, find_images
from loadtest.load.sample_images import ImagesError
from loadtest.progress import console


@dataclasses.dataclass(frozen=True)
class Labelled:
    """An image and its right classes, as indices in the model's list of classes."""

    file: Path
    classes: tuple[int, ...]


def from_folders(folder: Path, labels: Sequence[str]) -> list[Labelled]:
    """Images of FOLDER/<class>/. Raises ImagesError.

    If the folders have the names of the model's classes, they are assigned by name. Otherwise there
    must be one folder for each class, and their sorted order is the order of the classes.
    """
    test = folder / "test"  # the layout of `python -m reference evaluate`
    hint = f"; did you mean {test}?" if test.is_dir() else ""
    if not folder.is_dir():
        raise ImagesError(f"{folder}: no such folder; expected {folder}/<class>/*.jpg")
    tree = find_classes(folder)
    names = tree.classes
    if set(names) <= set(labels):
        places = {name: labels.index(name) for name in names}
    elif len(names) == len(labels):
        places = {name: place for place, name in enumerate(names)}
    else:
        strange = sorted(set(names) - set(labels))[:3]
        raise ImagesError(
            f"{folder}: {counted(len(names), 'folder')}, among them {', '.join(strange)}, "
            f"for a model of {len(labels)} classes; expected names of its classes, or a folder for "
            f"each{hint}"
        )
    found = [
        Labelled(file, (places[names[label]],))
        for file, label in zip(tree.files, tree.labels, strict=True)
    ]
    if not found:
        raise ImagesError(f"{folder}: no images; expected {folder}/<class>/*.jpg{hint}")
    empty = [name for label, name in enumerate(names) if label not in set(tree.labels)]
    if empty:
        console.print(f"{folder}: no image of {some_of(empty, 10)}", markup=False, soft_wrap=True)
    if left_out := str(tree.left_out):
        console.print(f"{folder}: left out {left_out}", markup=False, soft_wrap=True)
    return found


def imagenet(folder: Path, labels: Path | None, real: Path | None) -> list[Labelled]:
    """ImageNet's validation images with one kind of labels; raises ImagesError.

    Args:
        folder: With ILSVRC2012_val_00000001.JPEG and so on, in any subfolders.
        labels: Lines of a file's name and its class, 0 to 999 in the order of the WordNet ids.
        real: ReaL's real.json: for each image, by number, the list of its classes.
    """
    files, left_out = find_images(folder)
    if str(left_out):
        console.print(f"{folder}: left out {left_out}", markup=False, soft_wrap=True)
    if not files:
        raise ImagesError(f"{folder}: holds no images")
    if real is not None:
        return _real(files, real)
    if labels is None:
        raise ImagesError("expected a file of labels")
    truth = _named(labels)
    missing = [file.name for file in files if file.name not in truth]
    if missing:
        raise ImagesError(f"{labels}: has no label for {missing[0]} ({len(missing)} such files)")
    return [Labelled(file, (truth[file.name],)) for file in files]


def _named(labels: Path) -> dict[str, int]:
    truth = {}
    try:
        for number, line in enumerate(labels.read_text().splitlines(), 1):
            words = line.split()
            if len(words) != 2 or not words[1].isdecimal():
                raise ImagesError(
                    f"{labels}, line {number}: expected NAME.JPEG CLASS, found {line[:60]!r}; bare "
                    "numbers, as in ILSVRC2012_validation_ground_truth.txt, are another order of "
                    "the classes"
                )
            truth[Path(words[0]).name] = int(words[1])
    except OSError as error:
        raise ImagesError(f"{labels}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ImagesError(f"{labels}: expected lines of NAME.JPEG CLASS, found no text") from error
    return truth


def _real(files: Sequence[Path], real: Path) -> list[Labelled]:
    try:
        lists = json.loads(real.read_text())
    except (OSError, ValueError) as error:
        raise ImagesError(f"{real}: not ReaL's real.json: {error}") from error
    if not isinstance(lists, list):
        raise ImagesError(f"{real}: not ReaL's real.json: expected a list of lists of classes")
    found = []
    for file in files:
        number = file.stem.rpartition("_")[2]
        if not number.isdigit() or not 1 <= int(number) <= len(lists):
            raise ImagesError(
                f"{file.name}: expected ILSVRC2012_val_00000001.JPEG and so on, up to {len(lists)}"
            )
        if classes := lists[int(number) - 1]:
            found.append(Labelled(file, tuple(classes)))
    return found
