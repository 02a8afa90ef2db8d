"""The whole classifier as one ONNX graph, from uint8 pixels to probabilities.

In: a `Classifier`. Out: an ONNX model with the input `image` (UINT8 [N, H, W, 3]) and the outputs
`logits`, `probabilities` (FP32 [N, K]) and `embedding` (FP32 [N, D]), any batch size N.
Casting, normalisation and softmax are inside, so that no client can get them wrong. The same
weights give the same bytes.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from torch import Tensor, nn

from contracts.cpu import cpu_flags, exact_products
from contracts.probing import Golden, golden_of, probe_pixels
from contracts.repository import INPUT, LOGITS, PROBABILITIES
from export.classifier import Classifier
from export.embedding import add_embedding
from export.preprocessing import Channels

# The first opset with a native Gelu; LayerNormalization is native since opset 17. ONNX Runtime
# supports opset 20 since 1.17, TensorRT since 10.
OPSET = 20
# The batch size of the trace. Neither 0 nor 1, which the tracer would take for constants.
TRACED_BATCH = 2
# protobuf's limit is 2 GiB for a whole message; weights above this size go to a separate file.
EXTERNAL_DATA_BYTES = 2**31 - 2**26
EXTERNAL_DATA_NAME = "model.onnx.data"


class WholeClassifier(nn.Module):
    """uint8 [N, H, W, 3] -> float32 logits [N, K] and probabilities [N, K]."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier.module
        self.sigmoid = classifier.activation == "sigmoid"
        self.mean, self.std = (_scalar(each) for each in classifier.normalization.constants())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        # The cast comes first: TensorRT takes UINT8 inputs only where nothing else reads them.
        # 1/127.5 is not exact in binary, so a product with it would round twice. The graph divides,
        # as the reference does.
        logits = self.classifier((image.to(torch.float32) - self.mean) / self.std)
        return logits, torch.sigmoid(logits) if self.sigmoid else torch.softmax(logits, dim=-1)


def _scalar(values: Channels) -> float | Tensor:
    """A single number if all channels have the same value, so that the graph needs no array."""
    return values[0] if len(set(values)) == 1 else torch.tensor(values)


def build_graph(classifier: Classifier) -> ir.Model:
    """Trace the classifier with a dynamic batch; the weights are shared, not copied."""
    size = classifier.image_size
    example = torch.zeros(TRACED_BATCH, size, size, 3, dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            WholeClassifier(classifier).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[LOGITS, PROBABILITIES],
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1, max=2**16)}},
            verbose=False,
        )
    if program is None:  # only the older exporter, which is not used here, returns None
        raise RuntimeError("torch.onnx.export returned no program")
    _cast_first(program.model)
    _strip(program.model)
    if add_embedding(program.model) is None:
        raise RuntimeError("the traced graph has no head that reads an embedding")
    return program.model


def save_graph(model: ir.Model, path: Path) -> None:
    """Write `path`, with `model.onnx.data` beside it where the weights exceed protobuf's 2 GiB."""
    weights = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    external = EXTERNAL_DATA_NAME if weights > EXTERNAL_DATA_BYTES else None
    ir.save(model, path, external_data=external)
    onnx.checker.check_model(str(path), full_check=external is None)


def open_graph(path: Path) -> onnxruntime.InferenceSession:
    """ONNX Runtime on this machine's CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: the warnings are for ONNX Runtime's developers
    # Threads that wait actively would take the cores from PyTorch, which runs in turn with this
    # session.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # As the serving backend does: INT8 gives the same answers on every kind of CPU.
    for key, value in exact_products(cpu_flags()).items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def golden_answer(path: Path, image_size: int) -> Golden:
    """The answer of a published graph to the probes' image, which its servers must reproduce."""
    shape = (1, image_size, image_size, 3)
    pixels = np.frombuffer(probe_pixels(image_size, image_size), np.uint8).reshape(shape)
    probabilities = open_graph(path).run([PROBABILITIES], {INPUT: pixels})[0][0]
    return golden_of(probabilities.tolist(), image_size, image_size)


def initializer_array(value: ir.Value) -> npt.NDArray[np.float32]:
    """The weights that an initialiser holds."""
    if value.const_value is None:
        raise ValueError(f"{value.name} is no initialiser")
    return value.const_value.numpy()


def remove_unused(model: ir.Model) -> None:
    """Remove initialisers that no node reads after a change of the graph."""
    for name, value in list(model.graph.initializers.items()):
        if not value.uses():
            del model.graph.initializers[name]


def _cast_first(model: ir.Model) -> None:
    """Let only the Cast read the pixels: a traced ViT also takes the batch size from them."""
    image = model.graph.inputs[0]
    pixels = next(node for node, _ in image.uses() if node.op_type == "Cast").outputs[0]
    for node, index in list(image.uses()):
        if node.op_type != "Cast":
            node.replace_input_with(index, pixels)
    model.graph.sort()


def _strip(model: ir.Model) -> None:
    """Remove metadata that differ between machines or runs and that no runtime reads."""
    model.metadata_props.clear()
    model.doc_string = None
    model.producer_name, model.producer_version = "mixer-serving", None
    graph = model.graph
    graph.name, graph.doc_string = "classifier", None
    graph.metadata_props.clear()
    values = [*graph.inputs, *graph.initializers.values()]
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        values.extend(node.outputs)
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's log messages about its internals; errors are raised as exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
