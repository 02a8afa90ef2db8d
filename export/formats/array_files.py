"""Files of arrays, NumPy's `.npz` and `.safetensors`, read lazily and as untrusted input.

In: a path. Out: the arrays of the file. Shapes are known from the headers alone; values are read
only when they are needed, so that memory holds one array at a time. Nothing is ever unpickled.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from contracts.npz import Array, NpzArrays, checked, described, open_npz, read_start
from contracts.published import CheckpointError, Shape


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
        try:
            tensor: torch.Tensor = self._file.get_tensor(key)  # may be a view of the mapped file
            if not tensor.is_floating_point():
                raise CheckpointError(
                    f"{key}: expected floating-point numbers, found {tensor.dtype}"
                )
            values = tensor.to(torch.float32, copy=True).numpy()
        except (SafetensorError, NotImplementedError) as error:  # numbers of fewer than 8 bits
            raise CheckpointError(f"{key}: expected a readable array, found {error}") from None
        return checked(key, values)


ArrayFile = NpzArrays | SafetensorsArrays


@contextmanager
def open_arrays(path: Path) -> Iterator[ArrayFile]:
    """Open a file of arrays; the format is decided by the content, not by the name.

    Raises CheckpointError for a path that is no file, and for a file of neither format.
    """
    start = read_start(path)
    if start.startswith(b"PK"):
        with open_npz(path) as arrays:
            yield arrays
    elif start.endswith(b"{") and len(start) == 9:
        try:
            opened = safe_open(path, framework="pt")
        except SafetensorError as error:
            raise CheckpointError(f"expected a whole .safetensors file, found {error}") from None
        with opened as tensors:
            yield SafetensorsArrays(tensors)
    else:
        raise CheckpointError(f"expected an .npz or .safetensors file, found {described(start)}")
