"""Which files of a folder are images, and which class of a folder tree each belongs to.

In: a folder. Out: the paths of its images, in a stable order, and a count of what was left out.
Names decide here, not bytes: hidden entries and the folders that systems and tools leave behind
are no part of a collection, and files whose suffix is not that of an image format are left out.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from contracts.counting import counted
from contracts.images.formats import HEIC_IS_READ, HEIC_SUFFIXES, SUFFIXES

# Folders that are left out besides hidden ones: Synology's thumbnails, its bin, what macOS puts
# into archives, what Windows and Linux leave on drives, QNAP's thumbnails.
SYSTEM_FOLDERS = frozenset(
    {
        *("@eadir", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "recycler"),
        *("system volume information", "found.000", "lost+found", "__pycache__"),
        *("@recycle", "@recently-snapshot", "@__thumb", "network trash folder", "temporary items"),
    }
)
# Files that systems leave in folders of photos.
SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})


@dataclass
class LeftOut:
    """The entries that a walk left out: folders by name, files by suffix, and unreadable ones."""

    folders: Counter[str] = field(default_factory=Counter)
    suffixes: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)  # folders, with the reason

    def __str__(self) -> str:
        """One line for people, or "" where nothing was left out."""
        files = ", ".join(f"{n} × {suffix}" for suffix, n in self.suffixes.most_common(8))
        folders = ", ".join(sorted(self.folders)[:8])
        number, one = self.suffixes.total(), "file that is no image by its name"
        parts = [f"{counted(number, one, 'files that are no images by their names')} ({files})"]
        parts = parts if self.suffixes else []
        if self.unreadable:
            unread = ", ".join(self.unreadable[:8])
            parts.append(f"{counted(len(self.unreadable), 'folder')} ({unread})")
        if self.folders:
            what = "hidden or system folder"
            parts.append(f"{counted(self.folders.total(), what)} ({folders})")
        text = " and ".join(parts)
        if not HEIC_IS_READ and not HEIC_SUFFIXES.isdisjoint(self.suffixes):
            text += "; HEIC is read after `make heic`"
        return text


@dataclass(frozen=True)
class ClassTree:
    """The images of `FOLDER/<class>/…`, class by class, each class in a stable order."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]  # the index of each file's class
    classes: tuple[str, ...]  # by name
    left_out: LeftOut

    def summary(self, most: int = 20) -> str:
        """The number of classes, and the first of them with how many images each has."""
        counts = Counter(self.labels)
        shown = [f"{name} ({counts[label]})" for label, name in enumerate(self.classes[:most])]
        more = len(self.classes) - len(shown)
        shown += [f"{more} more"] if more else []
        return f"{counted(len(self.classes), 'class', 'classes')}: {', '.join(shown)}"


def find_images(folder: Path) -> tuple[list[Path], LeftOut]:
    """Every image under a folder, at any depth, by its suffix."""
    left_out = LeftOut()
    return sorted(_walk(folder, left_out)), left_out


def find_classes(folder: Path) -> ClassTree:
    """The images of each folder in `folder`, at any depth; a folder's name is its class.

    A folder without an image is a class, too. Raises OSError where the folder cannot be read.
    """
    left_out = LeftOut()
    classes = []
    for entry in folder.iterdir():
        if not entry.is_dir():
            if not _is_hidden(entry.name):
                left_out.suffixes[entry.suffix.lower() or entry.name] += 1
        elif _is_system(entry.name):
            left_out.folders[entry.name] += 1
        else:
            classes.append(entry.name)
    classes.sort()
    found = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted(_walk(folder / name, left_out))
    ]
    return ClassTree(
        tuple(file for file, _ in found),
        tuple(label for _, label in found),
        tuple(classes),
        left_out,
    )


def _walk(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    # Links to folders are followed, as collections of links are common; each folder is visited
    # once.
    seen: set[tuple[int, int]] = set()

    def unreadable(error: OSError) -> None:
        left_out.unreadable.append(f"{Path(error.filename).name}: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        system = [name for name in folders if _is_system(name)]
        left_out.folders.update(system)
        folders[:] = sorted(set(folders) - set(system))
        for name in names:
            suffix = Path(name).suffix.lower()
            if _is_hidden(name):
                continue
            if suffix in SUFFIXES:
                yield Path(place) / name
            else:
                left_out.suffixes[suffix or name] += 1


def _is_hidden(name: str) -> bool:
    """Whether a file is hidden; macOS's "._photo.jpg" begins with a dot as well."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS
