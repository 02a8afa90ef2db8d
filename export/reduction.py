"""A graph in reduced precision, judged; with INT8, as few layers as needed stay in FP32.

In: the traced FP32 graph, images. Out: the file of the reduced graph, and its judgement. If INT8 in
all layers misses its gate, the layers that lose the most accuracy (`sensitivity`) stay in FP32:
one, then two, four and so on up to a quarter of the layers, until the gate is passed. With more
layers in FP32, INT8 gains little speed.
"""

import dataclasses
import tempfile
from pathlib import Path

import onnx_ir as ir

from contracts.gate import Judgement
from export.graph import EXTERNAL_DATA_NAME, open_graph, save_graph
from export.options import Precision
from export.precision import (
    Images,
    RightLogits,
    calibrated,
    judge,
    reduce_precision,
)
from export.progress import step
from export.quantization import layer_names, quantize
from export.sensitivity import by_cost


def reduced(
    model: ir.Model,
    precision: Precision,
    samples: Images,
    path: Path,
    right: RightLogits,
    *,
    search: bool,
) -> Judgement:
    """Write `path`, and judge it against `right`, the FP32 classifier; the graph itself may change.

    Without `search` no layer is left in FP32: a search needs one run for every layer. Raises
    UsageError for a graph that contains inner graphs.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        scratch = Path(name)
        if precision != "int8" or not search:
            with step(f"reducing to {precision}"):
                reduce_precision(model, precision, samples, scratch)
            return _judged(model, precision, samples, path, right)
        with step("reducing to int8"):
            limits = calibrated(model, samples, scratch)
            whole = model.clone()
            quantize(whole, limits)
        judgement = _judged(whole, precision, samples, path, right)
        if judgement.passed:
            return judgement
        with step("it misses its gate: trying each layer alone"):
            dearest = by_cost(model, limits, samples.calibration, scratch)
        for count in _counts(len(layer_names(model)) // 4):
            part = model.clone()
            quantize(part, limits, kept=dearest[:count])
            judgement = _judged(part, precision, samples, path, right)
            judgement = dataclasses.replace(judgement, kept=count)
            if judgement.passed:
                break
    return judgement


def _counts(most: int) -> list[int]:
    """1, 2, 4 and so on, and `most` itself."""
    powers = [2**power for power in range(most.bit_length())]
    return sorted({*powers, most} - {0})


def _judged(
    model: ir.Model, precision: Precision, samples: Images, path: Path, right: RightLogits
) -> Judgement:
    (path.parent / EXTERNAL_DATA_NAME).unlink(missing_ok=True)
    save_graph(model, path)
    with step("judging it against FP32"):
        return judge(right, open_graph(path), precision, samples.held_back)
