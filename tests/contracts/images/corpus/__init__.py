"""Odd but honest image files, each with the pixels that are right, or the refusal.

In: nothing. Out: `corpus()`, the same few hundred cases every time, all made here. A case of
`right` pixels has a tolerance where a lossy format or a rounding needs one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One file. `right` is uint8[H, W, 3], or None where it is refused and `says` why."""

    name: str
    data: bytes
    right: Pixels | None = None
    tolerance: int = 0
    says: str = ""


def halves(left: tuple[int, int, int], right: tuple[int, int, int], size: int = 24) -> Pixels:
    """uint8[size, size, 3] of a plain left and a plain right half."""
    pixels = np.empty((size, size, 3), np.uint8)
    pixels[:, : size // 2] = left
    pixels[:, size // 2 :] = right
    return pixels


def same(value: int) -> tuple[int, int, int]:
    """A grey."""
    return value, value, value
