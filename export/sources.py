"""One interface to both kinds of classifier that are published: trace, check and count.

In: a `Classifier` in PyTorch, or an `OnnxClassifier`. Out: its graph, its parity, the logits with
which a reduced precision is compared, its cost.
"""

import onnx_ir as ir
import onnxruntime

from contracts.repository import INPUT, LOGITS
from contracts.resizing import Pixels
from export.classifier import Classifier
from export.flops import count_flops, graph_flops
from export.foreign.classifier import OnnxClassifier, check
from export.graph import build_graph
from export.parity import Logits, check_parity, torch_logits
from export.quantization import put_weights_right

Source = Classifier | OnnxClassifier


def trace(source: Source, *, for_int8: bool) -> ir.Model:
    """The whole classifier as a graph in FP32."""
    if isinstance(source, OnnxClassifier):
        return source.graph
    if for_int8:
        put_weights_right(source.module)
    return build_graph(source)


def parity(source: Source, session: onnxruntime.InferenceSession) -> float:
    """The largest difference between a graph and its source; raises ParityError."""
    if isinstance(source, OnnxClassifier):
        return check(source, session)
    return check_parity(source, session)


def right_logits(source: Source, full: onnxruntime.InferenceSession, images: Pixels) -> Logits:
    """The right logits for uint8 [N, H, W, 3], from PyTorch or from the FP32 graph `full`."""
    if isinstance(source, OnnxClassifier):
        logits: Logits = full.run([LOGITS], {INPUT: images})[0]
        return logits
    return torch_logits(source, images)


def flops(source: Source) -> int:
    """Floating-point operations for one image."""
    if isinstance(source, OnnxClassifier):
        return graph_flops(source.graph)
    return count_flops(source.module, source.image_size)
