"""A foreign graph inside the contract: uint8 images in, logits and probabilities out.

In: a graph and its `Reading`. Out: the same model with the input `image` (UINT8 [N, H, W, 3]) and
the outputs `logits` and `probabilities` (FP32 [N, K]), any batch size N. Cast, normalisation,
layout and activation are nodes around the graph; the graph itself does not change.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from contracts.repository import INPUT, LOGITS, PROBABILITIES
from export.foreign.reading import Asked, Reading, final_activation

OWN = "original/"  # prefix of every name of the foreign graph, so that none clashes with ours
_BATCH = "batch"


def wrap(model: ir.Model, reading: Reading, asked: Asked) -> None:
    """Change a model in place; its batch size does not change."""
    _rename(model)
    graph = model.graph
    image = ir.Value(
        name=INPUT,
        shape=ir.Shape([_BATCH, reading.height, reading.width, 3]),
        type=ir.TensorType(ir.DataType.UINT8),
    )
    first = graph[0]
    prepared, nodes = _prepared(model, image, reading, asked)
    graph.insert_before(first, nodes)
    for user, index in list(reading.image.uses()):
        if user not in nodes:
            user.replace_input_with(index, prepared)
    graph.inputs[:] = [image]
    logits, probabilities, ends = _answers(reading, asked)
    graph.extend(ends)
    graph.outputs[:] = [logits, probabilities]
    _drop_unreachable(model)


def constant(model: ir.Model, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """An initialiser of the main graph."""
    if name not in model.graph.initializers:
        model.graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(array)))
    return model.graph.initializers[name]


def _rename(model: ir.Model) -> None:
    graph = model.graph
    values = [*graph.inputs, *graph.initializers.values()]
    for node in graph.all_nodes():
        node.name = f"{OWN}{node.name}"
        values.extend(node.outputs)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                inner = attribute.as_graph()
                values.extend([*inner.inputs, *inner.initializers.values()])
    for value in dict.fromkeys(values):
        if value.name:
            value.name = f"{OWN}{value.name}"


def _prepared(
    model: ir.Model, image: ir.Value, reading: Reading, asked: Asked
) -> tuple[ir.Value, list[ir.Node]]:
    """The value that replaces the foreign graph's input, and the nodes that compute this value."""
    nodes: list[ir.Node] = []

    def add(op: str, inputs: Sequence[ir.Value], name: str, **attributes: Any) -> ir.Value:  # noqa: ANN401 - ONNX's
        nodes.append(ir.node(op, inputs, attributes=attributes, name=name))
        nodes[-1].outputs[0].name = name
        return nodes[-1].outputs[0]

    # The cast comes first: TensorRT takes UINT8 inputs only where nothing else reads them.
    pixels = add("Cast", [image], "pixels", to=int(ir.DataType.FLOAT))
    if asked.normalization is not None:
        mean, std = asked.normalization.constants()
        pixels = add("Sub", [pixels, constant(model, "mean", _row(mean))], "centred")
        pixels = add("Div", [pixels, constant(model, "std", _row(std))], "normalised")
    if asked.channel_order == "bgr":
        order = constant(model, "bgr", np.array([2, 1, 0], np.int64))
        pixels = add("Gather", [pixels, order], "reordered", axis=3)
    if reading.layout == "nchw":
        pixels = add("Transpose", [pixels], "channels_first", perm=[0, 3, 1, 2])
    if reading.takes_bytes:
        casts = [user for user, _ in reading.image.uses()]
        if casts and all(_casts_to_float(user) for user in casts):
            # The graph only casts the bytes to floats, so the users of its Cast read our floats.
            for node in casts:
                for user, index in list(node.outputs[0].uses()):
                    user.replace_input_with(index, pixels)
        else:
            pixels = add("Cast", [pixels], "bytes", to=int(ir.DataType.UINT8))
    return pixels, nodes


def _answers(reading: Reading, asked: Asked) -> tuple[ir.Value, ir.Value, list[ir.Node]]:
    """Logits, probabilities, and the nodes that compute them from the graph's own outputs."""
    nodes: list[ir.Node] = []

    def add(op: str, value: ir.Value, name: str, **attributes: Any) -> ir.Value:  # noqa: ANN401
        nodes.append(ir.node(op, [value], attributes=attributes, name=name))
        output = nodes[-1].outputs[0]
        output.name, output.dtype = name, ir.DataType.FLOAT
        output.shape = None
        return output

    # Flatten also turns [N, K, 1, 1] into [N, K], and gives the outputs our own names.
    activation = final_activation(reading, asked)
    if activation is None:
        probabilities = add("Flatten", reading.scores, PROBABILITIES, axis=1)
        return add("Log", probabilities, LOGITS), probabilities, nodes
    logits = add("Flatten", reading.logits, LOGITS, axis=1)
    if activation == "sigmoid":
        return logits, add("Sigmoid", logits, PROBABILITIES), nodes
    return logits, add("Softmax", logits, PROBABILITIES, axis=-1), nodes


def _drop_unreachable(model: ir.Model) -> None:
    """Remove nodes and weights that only unpublished outputs need."""
    graph = model.graph
    needed: set[ir.Node] = set()
    ahead = [value.producer() for value in graph.outputs]
    while ahead:
        node = ahead.pop()
        if node is None or node in needed:
            continue
        needed.add(node)
        for inner in _with_inner(node):
            ahead.extend(value.producer() for value in inner.inputs if value is not None)
    unused = [node for node in graph if node not in needed]
    graph.remove(unused, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]


def _with_inner(node: ir.Node) -> list[ir.Node]:
    """A node, and the nodes of its inner graphs (as in an If or a Loop)."""
    found = [node]
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.extend(attribute.as_graph().all_nodes())
    return found


def _casts_to_float(node: ir.Node) -> bool:
    return node.op_type == "Cast" and node.attributes["to"].as_int() == int(ir.DataType.FLOAT)


def _row(values: Sequence[float]) -> npt.NDArray[np.float32]:
    """One value for each channel, or a single value if all are the same."""
    return np.array(values if len(set(values)) > 1 else values[0], np.float32)
