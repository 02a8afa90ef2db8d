"""Reduced precision and its gate: a faster model whose answers differ is not published.

In: the traced FP32 graph, its classifier, typical images. Out: the graph in FP16 or INT8, and a
`Judgement`: its comparison with the FP32 classifier on images that did not calibrate it.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from contracts.cpu import EXACT_INT8, cpu_flags
from contracts.gate import Judgement, compared
from contracts.repository import INPUT, LOGITS
from export.calibration import calibrate
from export.half import to_half
from export.image_files import find_images, read_image
from export.options import Precision, UsageError
from export.parity import Logits, Pixels, probe_images
from export.preprocessing import Preprocessing
from export.progress import track
from export.quantization import activations, part_biases, quantize

# More images than the first number take time without a benefit; fewer than the second are too few
# for a judgement.
MOST_IMAGES, LEAST_IMAGES = 256, 20


# The right logits for uint8 [N, H, W, 3].
RightLogits = Callable[[Pixels], Logits]


class GateError(Exception):
    """The model in reduced precision misses its gate; the message has the numbers."""


@dataclasses.dataclass(frozen=True)
class Images:
    """Images uint8 [N, H, W, 3] in two groups, for calibration and for judgement."""

    calibration: Pixels
    held_back: Pixels


def has_vnni(cpu_info: Path) -> bool:
    """Whether Linux's /proc/cpuinfo lists x86-64's instructions for products of 8-bit integers."""
    return not EXACT_INT8.isdisjoint(cpu_flags(cpu_info))


def gather_images(folder: Path | None, rule: Preprocessing, image_size: int) -> Images:
    """The images of a folder, in turn for calibration and judgement; synthetic without a folder.

    Raises UsageError where the folder has too few images.
    """
    if folder is None:
        return Images(np.empty((0, image_size, image_size, 3), np.uint8), probe_images(image_size))
    paths = find_images(folder)
    chosen = sorted(
        {round(i) for i in np.linspace(0, len(paths) - 1, MOST_IMAGES)} if paths else []
    )
    images = []
    for path in track([paths[index] for index in chosen], "reading images"):
        image = read_image(path, rule, image_size)
        if image is not None:
            images.append(image)
    if len(images) < LEAST_IMAGES:
        raise UsageError(
            f"--calibration {folder}: expected at least {LEAST_IMAGES} images, found {len(images)}"
        )
    return Images(np.stack(images[::2]), np.stack(images[1::2]))


def reduce_precision(model: ir.Model, precision: Precision, samples: Images, scratch: Path) -> None:
    """Change the graph in place; `scratch` is a folder for temporary files.

    Raises UsageError for a graph that contains inner graphs.
    """
    if precision == "fp16":
        _check_reducible(model, precision)
        to_half(model)
    elif precision == "int8":
        quantize(model, calibrated(model, samples, scratch))


def calibrated(model: ir.Model, samples: Images, scratch: Path) -> dict[str, float]:
    """Prepare the graph for `quantize`, in place; returns the limits that `quantize` needs.

    Raises UsageError for a graph that contains inner graphs.
    """
    _check_reducible(model, "int8")
    part_biases(model)
    tracked = track(_batches(samples.calibration), "calibrating")
    return calibrate(model, activations(model), tracked, scratch)


def _check_reducible(model: ir.Model, precision: Precision) -> None:
    if any(node.graph is not model.graph for node in model.graph.all_nodes()):
        raise UsageError(
            f"--precision {precision}: the graph has an If, a Loop or a Scan, whose insides stay "
            "in FP32 here; publish it with --precision fp32, or export it with a dynamic batch"
        )


def judge(
    right: RightLogits,
    session: onnxruntime.InferenceSession,
    precision: Precision,
    images: Pixels,
) -> Judgement:
    """Compare a graph with `right`, the FP32 classifier's logits, on uint8 [N, H, W, 3]."""
    expected, found = [], []
    for batch in track(_batches(images), "judging"):
        expected.append(right(batch))
        found.append(session.run([LOGITS], {INPUT: batch})[0])
    return compared(precision, np.concatenate(expected), np.concatenate(found))


def _batches(images: Pixels) -> list[Pixels]:
    """Batches with about as many pixels as four images of 224×224, to limit the activations."""
    size = max(1, 4 * 224 * 224 // (images.shape[1] * images.shape[2]))
    return [images[start : start + size] for start in range(0, len(images), size)]
