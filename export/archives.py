"""Files of arrays, NumPy's `.npz` and `.safetensors`, read lazily and without trusting them.

In: a path. Out: the arrays of the file, every shape known from the headers alone, every value read
when asked for, so that memory holds one array at a time. Nothing is ever unpickled.
"""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from export.published import Array, CheckpointError, Shape

_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# What zipfile and numpy.lib.format raise for damaged or hostile files.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


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
        if array.dtype.kind != "f":
            raise CheckpointError(f"{key}: expected floating-point numbers, found {array.dtype}")
        return array.astype(np.float32, copy=False)


class SafetensorsArrays:
    """The arrays of an open `.safetensors` file."""

    def __init__(self, opened: safe_open) -> None:
        file: Any = opened  # its methods have no types
        self.metadata: dict[str, str] = file.metadata() or {}
        self.shapes: dict[str, Shape] = {
            key: tuple(file.get_slice(key).get_shape())
            for key in file.keys()  # noqa: SIM118 - no mapping
        }
        self._file = file

    def read(self, key: str) -> Array:
        """The values of one array as float32; raises CheckpointError where that cannot be done."""
        tensor: torch.Tensor = self._file.get_tensor(key)  # may be a view of the mapped file
        if not tensor.is_floating_point():
            raise CheckpointError(f"{key}: expected floating-point numbers, found {tensor.dtype}")
        array: Array = tensor.to(torch.float32, copy=True).numpy()
        return array


ArrayFile = NpzArrays | SafetensorsArrays


@contextmanager
def open_arrays(path: Path) -> Iterator[ArrayFile]:
    """Open a file of arrays; its content, not its name, says which format it has.

    Raises CheckpointError for a path that is no file, and for a file that is neither format.
    """
    if path.is_dir():
        raise CheckpointError("expected a file, found a directory")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise CheckpointError("no such file") from None
    except OSError as error:
        raise CheckpointError(f"expected a readable file, found {error.strerror}") from None
    if start.startswith(b"PK"):
        try:
            archive = zipfile.ZipFile(path)
        except _DAMAGE as error:
            raise CheckpointError(f"expected a whole .npz archive, found {error}") from None
        with archive:
            yield NpzArrays(archive)
    elif start.endswith(b"{") and len(start) == 9:
        try:
            opened = safe_open(path, framework="pt")
        except SafetensorError as error:
            raise CheckpointError(f"expected a whole .safetensors file, found {error}") from None
        with opened as tensors:
            yield SafetensorsArrays(tensors)
    else:
        found = "an empty file" if not start else f"a file that begins with {start!r}"
        raise CheckpointError(f"expected an .npz or .safetensors file, found {found}")
