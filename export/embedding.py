"""The third output of a graph: the image's embedding, which is the input of the head.

In: a graph inside the contract, whose output `logits` is FP32 [N, K]. Out: the same graph, with the
output `embedding`, FP32 [N, D], if the embedding is certain. The head is the last product with
constant weights, D × K; between the head and the logits there may be only a bias, a division by one
constant number (the temperature of a calibrated model) and changes of shape. A graph that ends in
another way gets no such output. The output adds no node and no work, since the value is computed
anyway.
"""

import onnx_ir as ir

from contracts.repository import EMBEDDING, LOGITS

# Nodes that change the shape of their input, and nothing else.
RESHAPERS = {"Identity", "Flatten", "Reshape", "Squeeze"}


def add_embedding(model: ir.Model) -> int | None:
    """Give the graph its third output; D, or None where the embedding is not certain."""
    graph = model.graph
    logits = next(value for value in graph.outputs if value.name == LOGITS)
    found = _read_by_head(logits)
    if found is None:
        return None
    value, width = found
    if value.shape is None or len(value.shape) != 2:
        end = ir.node("Flatten", [value], attributes={"axis": 1}, name=f"{EMBEDDING}/flatten")
        graph.append(end)
        value = end.outputs[0]
    value.name = EMBEDDING
    value.type = ir.TensorType(ir.DataType.FLOAT)
    value.shape = ir.Shape(["batch", width])
    graph.outputs.append(value)
    return width


def embedding_width(model: ir.Model) -> int | None:
    """D of a graph's output `embedding`; None where it has none."""
    for value in model.graph.outputs:
        if value.name == EMBEDDING and value.shape is not None:
            width = value.shape[1]
            return width if isinstance(width, int) else None
    return None


def _read_by_head(logits: ir.Value) -> tuple[ir.Value, int] | None:
    """The input of the head, and its width D; None where it is not certain."""
    value: ir.Value | None = logits
    biases = 0
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in RESHAPERS:
            value = node.inputs[0]
        elif node.op_type == "Add" and not biases:
            biases += 1
            constants = [each for each in node.inputs if each is not None and _constant(each)]
            if len(constants) != 1:
                return None
            value = next(each for each in node.inputs if each is not constants[0])
        elif node.op_type == "Div" and _is_number(node.inputs[1]):
            value = node.inputs[0]
        else:
            return _input_of(node, logits)
    return None


def _input_of(head: ir.Node, logits: ir.Value) -> tuple[ir.Value, int] | None:
    if head.op_type not in ("MatMul", "Gemm", "Conv") or len(head.inputs) < 2:
        return None
    source, weights = head.inputs[0], head.inputs[1]
    if source is None or weights is None or not _constant(weights) or source.is_graph_input():
        return None
    sizes = list(weights.const_value.shape.numpy()) if weights.const_value is not None else []
    if head.op_type == "Conv":
        # The input must have one number for each channel, so that the convolution is a product.
        if len(sizes) != 4 or sizes[2:] != [1, 1] or _rest(source) != [sizes[1], 1, 1]:
            return None
        width, classes = sizes[1], sizes[0]
    elif len(sizes) != 2 or _attribute(head, "transA") or _rank_is_other(source):
        return None
    else:
        turned = head.op_type == "Gemm" and _attribute(head, "transB")
        classes, width = sizes if turned else reversed(sizes)
    if logits.shape is not None and logits.shape[-1] not in (classes, None):
        return None
    return source, int(width)


def _constant(value: ir.Value) -> bool:
    return value.is_initializer() and value.const_value is not None


def _is_number(value: ir.Value | None) -> bool:
    """Whether the value is one constant number."""
    return (
        value is not None
        and value.is_initializer()
        and value.const_value is not None
        and value.const_value.size == 1
    )


def _rest(value: ir.Value) -> list[object]:
    """The sizes of all axes but the batch."""
    return [] if value.shape is None else [*value.shape][1:]


def _rank_is_other(value: ir.Value) -> bool:
    """Whether the value is not [N, D]: tokens [N, S, D], averaged later, are no embedding."""
    return value.shape is None or len(value.shape) != 2


def _attribute(node: ir.Node, name: str) -> bool:
    return name in node.attributes and node.attributes[name].as_int() == 1
