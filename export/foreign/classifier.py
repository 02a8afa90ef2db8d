"""A foreign ONNX classifier in the form in which it is published.

In: an ONNX file and the user's statements about it. Out: an `OnnxClassifier`: the graph inside the
contract, and the original graph, with which it is compared.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnxruntime

from contracts.repository import INPUT, LOGITS, PROBABILITIES
from contracts.resizing import Pixels
from export.embedding import add_embedding
from export.foreign.batching import free_batch, scan_batch
from export.foreign.reading import Asked, GraphError, Reading, load_graph, read_graph
from export.foreign.wrapping import OWN, wrap
from export.parity import Logits, ParityError, probe_images
from export.preprocessing import Activation, Normalization, Preprocessing
from export.progress import note

# As a share of the largest score: the same nodes round differently at different batch sizes.
TOLERANCE = 1e-5
BATCH_SIZES = (1, 3, 5)


@dataclasses.dataclass(frozen=True)
class OnnxClassifier:
    """A foreign graph, wrapped, and its origin."""

    graph: ir.Model
    original: "Original"
    activation: Activation
    image_size: int  # pixels per side
    num_classes: int
    source: str  # the file's name
    sha256: str
    preprocessing: Preprocessing
    normalization: Normalization
    labels: list[str] | None = None
    family: str = "onnx"
    variant: str | None = None
    random_weights: bool = False
    tag: str = ""


class Original:
    """The original graph, which gets its inputs in the form that its own users give."""

    def __init__(self, path: Path, reading: Reading, asked: Asked) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        with _running():
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        self._input = self._session.get_inputs()[0].name
        self._output = reading.scores.name
        self._reading, self._asked = reading, asked

    def scores(self, images: Pixels) -> Logits:
        """The original's scores for uint8 [N, H, W, 3], float32 [N, K]; raises GraphError."""
        fed: npt.NDArray[np.generic] = images
        if self._asked.channel_order == "bgr":
            fed = images[..., ::-1]
        if self._asked.normalization is not None:
            mean, std = (np.array(each, np.float32) for each in self._constants())
            fed = (fed.astype(np.float32) - mean) / std
        if self._reading.layout == "nchw":
            fed = fed.transpose(0, 3, 1, 2)
        fed = np.ascontiguousarray(fed)
        step = self._reading.batch or len(fed)
        with _running():
            parts = [
                self._session.run([self._output], {self._input: fed[start : start + step]})[0]
                for start in range(0, len(fed), step)
            ]
        scores: Logits = np.concatenate([part.reshape(part.shape[0], -1) for part in parts])
        return scores

    def _constants(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, in the graph's own order of channels."""
        normalization = self._asked.normalization or Normalization()
        mean, std = normalization.constants()
        bgr = self._asked.channel_order == "bgr"
        return (mean[::-1], std[::-1]) if bgr else (mean, std)


def read_onnx(path: Path, asked: Asked, preprocessing: Preprocessing) -> OnnxClassifier:
    """Read an ONNX classifier; raises GraphError, one sentence, if it cannot be served."""
    try:
        return _read(path, asked, preprocessing)
    except GraphError as error:
        raise GraphError(f"--onnx {path}: {error}") from None


def _read(path: Path, asked: Asked, preprocessing: Preprocessing) -> OnnxClassifier:
    model = load_graph(path)
    reading = read_graph(model, asked)
    if reading.height != reading.width:
        raise GraphError(
            f"the graph takes images of {reading.width}×{reading.height} pixels, expected a square"
        )
    if reading.batch not in (None, 1):
        raise GraphError(
            f"the graph takes {reading.batch} images at once and no other number: export it with "
            "a dynamic batch, or with one image"
        )
    original = Original(path, reading, asked)
    scores = original.scores(probe_images(reading.height, 2))
    activation = _activation(reading, asked, scores)
    wrap(model, reading, asked)
    if reading.batch is not None:
        model = _any_batch(model, path, reading, asked, original)
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return OnnxClassifier(
        graph=_described(model, scores.shape[1]),
        original=original,
        activation=activation,
        image_size=reading.height,
        num_classes=scores.shape[1],
        source=path.name,
        sha256=sha256,
        preprocessing=preprocessing,
        normalization=asked.normalization or Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    )


def check(classifier: OnnxClassifier, session: onnxruntime.InferenceSession) -> float:
    """The largest difference from the original's scores.

    Raises ParityError above the tolerance, GraphError where ONNX Runtime cannot run the graph.
    """
    return _difference(classifier.original, session, classifier.image_size)


def _difference(original: Original, session: onnxruntime.InferenceSession, size: int) -> float:
    images = probe_images(size, max(BATCH_SIZES))
    expected = original.scores(images)
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    worst = 0.0
    for batch in BATCH_SIZES:
        with _running():
            answers = session.run([LOGITS, PROBABILITIES], {INPUT: images[-batch:]})
        shapes = {answer.shape for answer in answers}
        if shapes != {expected[-batch:].shape}:
            raise ParityError(f"the graph answers a batch of {batch} with shapes {shapes}")
        # The original's scores are logits, probabilities, or the logarithms of probabilities.
        found = [*answers, np.log(np.maximum(answers[1], 1e-30))]
        difference = min(float(np.abs(each - expected[-batch:]).max()) for each in found)
        if not difference <= allowed:  # so that NaN fails too
            raise ParityError(
                f"the graph's scores differ from the original's by {difference:.2g} at batch size "
                f"{batch}, allowed is {allowed:.2g}; nothing was published"
            )
        worst = max(worst, difference)
    return worst


def _activation(reading: Reading, asked: Asked, scores: Logits) -> Activation:
    if reading.inside is not None:
        return reading.inside
    if asked.activation in ("softmax", "sigmoid"):
        return asked.activation
    if not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1 + 1e-5):
        raise GraphError(
            f"--activation none: the graph's numbers are no probabilities, they reach from "
            f"{scores.min():.3g} to {scores.max():.3g}"
        )
    return "softmax" if np.abs(scores.sum(axis=1) - 1).max() < 1e-3 else "sigmoid"


def _any_batch(
    model: ir.Model, path: Path, reading: Reading, asked: Asked, original: Original
) -> ir.Model:
    """The wrapped graph for any batch size.

    It computes a batch at once if the results stay the same, else image by image.
    """
    free_batch(model)
    try:
        _difference(original, _session(model), reading.height)
    except (GraphError, ParityError):  # it cannot be run, or the results differ
        note("the graph takes one image, so the images of a batch are computed one after another")
        model = load_graph(path)
        again = read_graph(model, asked)
        wrap(model, again, asked)
        for value in (again.scores, again.logits):
            value.shape = None
        prepared = next(
            value
            for node in model.graph
            if (node.name or "").startswith(OWN)
            for value in node.inputs
            if value is not None
            and value.producer() is not None
            and not (value.producer().name or "").startswith(OWN)  # type: ignore[union-attr] # has one
        )
        scan_batch(model, prepared, again.logits)
    return model


def _session(model: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    data = ir.to_proto(model).SerializeToString()
    with _running():
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _running() -> Iterator[None]:
    """Around calls of ONNX Runtime alone; raises GraphError for any of its exceptions."""
    try:
        yield
    except Exception as error:  # they have no common base class
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise GraphError(f"ONNX Runtime cannot run the graph: {reason}") from None


def _described(model: ir.Model, num_classes: int) -> ir.Model:
    """The model, checked, with the contract's shapes on its outputs."""
    for output in model.graph.outputs:
        output.type = ir.TensorType(ir.DataType.FLOAT)
        output.shape = ir.Shape(["batch", num_classes])
    model.graph.name = "classifier"
    passes.ShapeInferencePass()(model)  # the conversion to FP16 needs the type of every value
    add_embedding(model)
    onnx.checker.check_model(ir.to_proto(model))
    return model
