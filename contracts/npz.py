"""Checkpoints in NumPy's `.npz`, read lazily and without trusting them.

In: a path. Out: `Arrays`, every shape known from the headers alone, every value read when asked
for, so that memory holds one array at a time. Nothing is ever unpickled.
"""

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from contracts.images.errors import UnsupportedTypeError
from contracts.images.formats import sniff
from contracts.published import CheckpointError, Shape, published_names, published_shape

Array = npt.NDArray[np.float32]

_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# What zipfile and numpy.lib.format raise for damaged or hostile files. A header is a literal in
# Python's syntax; NumPy takes one that it cannot evaluate apart into tokens, as one of Python 2.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError),
    *(SyntaxError, TypeError, tokenize.TokenError),
)
# NumPy writes no others, and each other method has an exception class of its own.
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


class Arrays(Protocol):
    """The arrays of one checkpoint. Shapes are known at once, values are read one at a time."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of each array."""
        ...

    def read(self, key: str) -> Array:
        """The values of one array, float32; raises CheckpointError where that cannot be done."""
        ...


class NpzArrays:
    """The arrays of an open `.npz` file: a zip archive of `.npy` files."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.metadata: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        self._archive = archive
        for member in archive.infolist():
            key = member.filename.removesuffix(".npy")
            if key in self.shapes:
                raise CheckpointError(f"{key}: expected one array of this name, found two")
            if key != member.filename:
                self.shapes[key] = self._read_header(key, member)
        if not self.shapes:
            raise CheckpointError(
                "expected an .npz archive of arrays, found a zip archive without any .npy in it "
                "(a PyTorch file? those have to be converted to .safetensors)"
            )

    def _read_header(self, key: str, member: zipfile.ZipInfo) -> Shape:
        try:
            if member.compress_type not in _COMPRESSIONS:
                raise ValueError(f"compression method {member.compress_type}, which NumPy lacks")
            with self._archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                if version not in _NPY_HEADERS:
                    raise ValueError(f".npy version {version}")
                shape, _, dtype = _NPY_HEADERS[version](file)
                payload = member.file_size - file.tell()
        except _DAMAGE as error:
            raise CheckpointError(f"{key}: expected a readable array, found {error}") from None
        if dtype.hasobject:
            raise CheckpointError(
                f"{key}: expected an array of numbers, found pickled Python objects, "
                "which are never loaded"
            )
        size = math.prod(shape) * dtype.itemsize
        if payload != size:
            raise CheckpointError(
                f"{key}: expected {size} bytes for {dtype} {shape}, found {payload}"
            )
        return tuple(shape)

    def read(self, key: str) -> Array:
        """The values of one array as float32; raises CheckpointError where that cannot be done."""
        try:
            with self._archive.open(f"{key}.npy") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        except _DAMAGE as error:
            raise CheckpointError(f"{key}: expected a readable array, found {error}") from None
        return checked(key, array)


class PublishedArrays:
    """Arrays under the spelling of their names that `contracts.published` uses."""

    def __init__(self, file: Arrays) -> None:
        self._file = file
        self._keys = published_names(file.shapes)
        self.shapes = {name: published_shape(file.shapes[key]) for name, key in self._keys.items()}

    def read(self, key: str) -> Array:
        """The values of one array, float32, by its published name."""
        return self._file.read(self._keys[key]).reshape(self.shapes[key])


def checked(key: str, array: npt.NDArray[np.generic]) -> Array:
    """A checkpoint's array as float32; raises CheckpointError unless it has finite numbers."""
    if array.dtype.kind != "f":
        raise CheckpointError(f"{key}: expected floating-point numbers, found {array.dtype}")
    with np.errstate(over="ignore"):  # a double beyond float32's range becomes infinity
        values = array.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise CheckpointError(f"{key}: expected finite numbers, found NaN or infinity")
    return values


@contextmanager
def open_npz(path: Path) -> Iterator[NpzArrays]:
    """Open an `.npz` file; raises CheckpointError where it is none, or damaged."""
    start = read_start(path)
    if not start.startswith(b"PK"):
        raise CheckpointError(f"expected an .npz file of plain arrays, found {described(start)}")
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise CheckpointError(f"expected a whole .npz archive, found {error}") from None
    with archive:
        yield NpzArrays(archive)


def read_start(path: Path) -> bytes:
    """The first nine bytes of a file, which tell its format; raises CheckpointError."""
    if path.is_dir():
        raise CheckpointError("expected a file, found a directory")
    try:
        with path.open("rb") as file:
            return file.read(9)
    except FileNotFoundError:
        raise CheckpointError("no such file") from None
    except OSError as error:
        raise CheckpointError(f"expected a readable file, found {error.strerror}") from None


def described(start: bytes) -> str:
    """What a file of another format is, for a message."""
    if not start:
        return "an empty file"
    with suppress(UnsupportedTypeError):
        return f"a {sniff(start)} image"
    with suppress(UnicodeDecodeError):
        if (text := " ".join(start.decode("ascii").split())).isprintable():
            return f"a text file that begins with {text!r}"
    return f"a file that begins with {start!r}"
