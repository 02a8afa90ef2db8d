"""FP16, stated in the graph itself: products and elementwise operations in FP16, others in FP32.

In: a traced graph in FP32. Out: the same graph with FP16 weights and Cast nodes; its inputs and
outputs do not change. Operations that lose too much accuracy in FP16 stay in FP32: normalisation of
the pixels, every LayerNorm, GroupNorm and softmax, means, and all after the pooling (the head).
"""

import numpy as np
import onnx_ir as ir

from contracts.repository import LOGITS, PROBABILITIES
from export.graph import initializer_array, remove_unused

# Operations that stay in FP32: statistics over many elements, and exponentials.
_WIDE = {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "Softmax"}
_MEANS = {"ReduceMean", "GlobalAveragePool"}
_SELECTS = {"Gather", "Slice"}  # a ViT's class token
_FIRST_PRODUCT = {"MatMul", "Gemm", "Conv"}
_LARGEST_HALF = 65504.0


class HalfRangeError(ValueError):
    """A weight is too large for FP16; the message names it."""


def to_half(model: ir.Model) -> None:
    """Change the graph in place. Raises HalfRangeError for weights beyond 65504."""
    head = _head(model)
    casts = _Casts(model.graph)
    begun = False
    for node in list(model.graph):
        begun = begun or node.op_type in _FIRST_PRODUCT
        if not begun or node.op_type in _WIDE | _MEANS or node in head:
            casts.keep_wide(node)
        else:
            casts.make_half(node)
    casts.widen_outputs()
    remove_unused(model)


class _Casts:
    """Casts between the two precisions, at most one for each value and direction."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._halves: dict[ir.Value, ir.Value] = {}  # FP32 values that have an FP16 copy
        self._floats: dict[ir.Value, ir.Value] = {}  # FP16 values that have an FP32 copy

    def keep_wide(self, node: ir.Node) -> None:
        """Give an FP32 node FP32 inputs."""
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == ir.DataType.FLOAT16:
                if value not in self._floats:
                    self._floats[value] = self._cast(node, value, ir.DataType.FLOAT)
                node.replace_input_with(index, self._floats[value])

    def make_half(self, node: ir.Node) -> None:
        """Give a node FP16 inputs, and so FP16 outputs; integers stay what they are."""
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == ir.DataType.FLOAT:
                if value not in self._halves:
                    self._halves[value] = (
                        _half_initializer(self._graph, value)
                        if value.is_initializer()
                        else self._cast(node, value, ir.DataType.FLOAT16)
                    )
                node.replace_input_with(index, self._halves[value])
        if node.op_type == "Cast" and node.attributes["to"].as_int() == int(ir.DataType.FLOAT):
            node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT16))
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT:
                output.dtype = ir.DataType.FLOAT16

    def widen_outputs(self) -> None:
        """Cast the graph's outputs that are FP16 back to FP32."""
        for index, value in enumerate(self._graph.outputs):
            if value.dtype == ir.DataType.FLOAT16:
                name, value.name = value.name, f"{value.name}/fp16"
                node = ir.node("Cast", [value], attributes={"to": int(ir.DataType.FLOAT)})
                node.name = node.outputs[0].name = name
                node.outputs[0].dtype = ir.DataType.FLOAT
                node.outputs[0].shape = value.shape
                self._graph.append(node)
                self._graph.outputs[index] = node.outputs[0]

    def _cast(self, before: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        name = f"{value.name}/{'fp16' if dtype == ir.DataType.FLOAT16 else 'fp32'}"
        node = ir.node("Cast", [value], attributes={"to": int(dtype)}, name=name)
        node.outputs[0].name = name
        node.outputs[0].dtype = dtype
        node.outputs[0].shape = value.shape
        self._graph.insert_before(before, [node])
        return node.outputs[0]


def _head(model: ir.Model) -> set[ir.Node]:
    """The nodes after the pooling: they compute few numbers, but decide the answer's precision."""
    found: set[ir.Node] = set()
    ahead = [value for value in model.graph.outputs if value.name in (LOGITS, PROBABILITIES)]
    while ahead:
        node = ahead.pop().producer()
        if node is None or node in found or node.op_type in _MEANS | _SELECTS:
            continue
        found.add(node)
        ahead.extend(value for value in node.inputs if value is not None)
    return found


def _half_initializer(graph: ir.Graph, value: ir.Value) -> ir.Value:
    array = initializer_array(value)
    largest = float(np.abs(array).max(initial=0.0))
    if largest > _LARGEST_HALF:
        raise HalfRangeError(
            f"{value.name} holds {largest:.3g}, more than FP16's {_LARGEST_HALF:.0f}: "
            "publish this model with --precision fp32"
        )
    name = f"{value.name}/fp16"
    half = ir.Value(name=name, const_value=ir.tensor(array.astype(np.float16)))
    graph.register_initializer(half)
    return half
