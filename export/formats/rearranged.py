"""A file's arrays under other names and in other shapes, computed when they are read.

In: the arrays of a file. Out: `Arrays` with the published names, each made of one or more of the
file's own arrays. An array of the file that is not used keeps its own name, so that the loader
reports it.
"""

from collections.abc import Callable

import numpy as np

from contracts.npz import Array, Arrays
from contracts.published import CheckpointError, Shape

Maker = Callable[[], Array]


class Rearranged:
    """Arrays by their published names; see the module's docstring."""

    def __init__(self, file: Arrays) -> None:
        self._file = file
        self._makers: dict[str, Maker] = {}
        self._left = dict(file.shapes)
        self._added: dict[str, Shape] = {}

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the arrays that were added, and of the file's arrays that are left."""
        return self._left | self._added

    def add(self, key: str, shape: Shape, sources: tuple[str, ...], make: Maker) -> None:
        """Let `make` compute the array `key`; `sources` count as used from then on.

        Raises CheckpointError where another array of the file has the same meaning.
        """
        if key in self._added:
            raise CheckpointError(f"{key}: expected one array of this meaning, found two")
        self._makers[key], self._added[key] = make, shape
        for source in sources:
            self._left.pop(source, None)

    def zeros(self, key: str, shape: Shape) -> None:
        """Add an array of zeros, which the file does not contain."""
        self.add(key, shape, (), lambda: np.zeros(shape, np.float32))

    def ignore(self, key: str) -> None:
        """Count an array as used that the classifier does not need."""
        self._left.pop(key, None)

    def read(self, key: str) -> Array:
        """The values of one array, float32; raises CheckpointError where that cannot be done."""
        return self._makers[key]() if key in self._makers else self._file.read(key)


class Renamed:
    """The arrays of a file under other names, otherwise unchanged."""

    def __init__(self, file: Arrays, rename: Callable[[str], str]) -> None:
        self._file = file
        self._keys = {rename(key): key for key in file.shapes}
        self.shapes = {name: file.shapes[key] for name, key in self._keys.items()}

    def read(self, key: str) -> Array:
        """The values of one array, float32."""
        return self._file.read(self._keys[key])
