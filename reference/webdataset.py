"""Images in tar files, as WebDataset has them: `train-000000.tar` and so on.

In: a folder with SPLIT-*.tar (or SPLIT/*.tar). A sample is a group of files with the same stem; its
file `.cls` has the number of the class in digits. If there is a `classes.txt` beside the tar files,
it has the names of the classes, one a line. Out: the offset of every image inside its tar file.
Only headers and class numbers are read at first; an image is read from its tar file when it is
needed.
"""

import dataclasses
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm")


class TarError(ValueError):
    """The tar files cannot be used; the message names the file and what was expected."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One image inside a tar file."""

    tar: Path
    name: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """The encoded image; raises OSError."""
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    @property
    def parent(self) -> Path:
        """The path of the tar file, which a message names like a folder."""
        return self.tar

    def __str__(self) -> str:
        return f"{self.tar}:{self.name}"


def tar_files(source: Path, split: str) -> list[Path]:
    """The tar files of a split in a folder, in order; empty if there are none."""
    return sorted(source.glob(f"{split}-*.tar")) or sorted((source / split).glob("*.tar"))


def find(tars: list[Path], workers: int = 0) -> tuple[list[Member], list[int], tuple[str, ...]]:
    """Every image in order, the number of its class, and the classes; raises TarError."""
    with ThreadPoolExecutor(workers or None) as pool:
        found = [sample for samples in pool.map(_index, tars) for sample in samples]
    if not found:
        raise TarError(f"{tars[0].parent}: no sample with an image and a .cls in the tar files")
    labels = [label for _, label in found]
    names = next(
        (
            path
            for path in (tars[0].parent / "classes.txt", tars[0].parent.parent / "classes.txt")
            if path.is_file()
        ),
        None,
    )
    if names is None:
        classes = tuple(str(number) for number in range(max(labels) + 1))
    else:
        classes = tuple(names.read_text().splitlines())
        if max(labels) >= len(classes):
            raise TarError(f"{names}: has {len(classes)} classes, the tar files {max(labels) + 1}")
    return [member for member, _ in found], labels, classes


def _index(path: Path) -> list[tuple[Member, int]]:
    images: dict[str, Member] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as tar:  # not compressed: a reader can seek
            for entry in tar:
                stem, dot, suffix = Path(entry.name).name.partition(".")
                key = str(Path(entry.name).parent / stem)
                if not entry.isfile() or not dot:
                    continue
                if f".{suffix.lower()}" in SUFFIXES:
                    images[key] = Member(path, entry.name, entry.offset_data, entry.size)
                elif suffix.lower() == "cls" and (file := tar.extractfile(entry)) is not None:
                    labels[key] = _number(file.read(), path, entry.name)
            _check_end(tar)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise TarError(f"{path}: expected a whole, uncompressed tar file: {error}") from error
    return [(member, labels[key]) for key, member in images.items() if key in labels]


def _check_end(tar: tarfile.TarFile) -> None:
    """Raises ReadError if something is left: tarfile takes a damaged header for the end."""
    assert tar.fileobj is not None  # noqa: S101 - it is open; this line is for the type checker
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"damaged at byte {tar.offset}")


def _number(content: bytes, path: Path, name: str) -> int:
    text = content.decode("ascii", "replace").strip()
    if not (text.isascii() and text.isdigit()):
        raise TarError(f"{path}:{name}: expected the number of a class, found {text[:20]!r}")
    return int(text)
