"""Calibration: the scale of each activation that INT8 arithmetic will use, from real images.

In: an ONNX file, the names of activations, images. Out: for each activation its limit, the
magnitude that becomes the integer 127. Scales are static, so that an answer never depends on the
other images of its batch.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from contracts.repository import INPUT
from export.graph import open_graph, save_graph

_BINS = 4096
LEVELS = 127  # of a symmetric int8, to each side of zero


class Magnitudes:
    """A histogram of |x| over a stream of arrays; its range doubles when a value exceeds it."""

    def __init__(self) -> None:
        self._limit = 2.0**-16
        self._counts = np.zeros(_BINS)

    def add(self, array: npt.NDArray[np.float32]) -> None:
        """Count the magnitudes of an array of any shape."""
        magnitudes = np.abs(array.ravel())
        while float(magnitudes.max()) > self._limit:
            merged = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.concatenate([merged, np.zeros(_BINS // 2)])
            self._limit *= 2
        bins = (magnitudes * np.float32(_BINS / self._limit)).astype(np.int32)
        np.minimum(bins, _BINS - 1, out=bins)  # a magnitude equal to the limit: the last bin
        self._counts += np.bincount(bins, minlength=_BINS)

    def best_limit(self) -> float:
        """The limit with the least squared error of rounding and clipping."""
        width = self._limit / _BINS
        centres = (np.arange(_BINS) + 0.5) * width
        filled = np.flatnonzero(self._counts[1:])
        if not len(filled):  # the activation is always zero: any scale is right
            return self._limit
        highest = int(filled[-1]) + 2
        best, least = highest * width, np.inf
        for bins in range(max(1, highest // 8), highest + 1, max(1, highest // 256)):
            limit = bins * width
            scale = limit / LEVELS
            rounded = np.minimum(np.round(centres / scale), LEVELS) * scale
            error = float((self._counts * (centres - rounded) ** 2).sum())
            if error < least:
                best, least = limit, error
        return best


def calibrate(
    model: ir.Model, names: list[str], batches: Iterable[npt.NDArray[np.uint8]], scratch: Path
) -> dict[str, float]:
    """The limit of each named activation over batches of uint8 [N, H, W, 3].

    `scratch` is a folder for a copy of the graph whose outputs are these activations.
    """
    if not names:  # for ONNX Runtime an empty list means all outputs
        return {}
    values = {value.name: value for node in model.graph for value in node.outputs}
    outputs = list(model.graph.outputs)
    model.graph.outputs.extend(values[name] for name in names)
    try:
        path = scratch / "model.onnx"
        save_graph(model, path)
    finally:
        model.graph.outputs[:] = outputs
    session = open_graph(path)
    magnitudes = {name: Magnitudes() for name in names}
    for batch in batches:
        for name, array in zip(names, session.run(names, {INPUT: batch}), strict=True):
            magnitudes[name].add(array)
    return {name: histogram.best_limit() for name, histogram in magnitudes.items()}
