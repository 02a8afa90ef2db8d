"""Any batch size for a graph that was exported with a fixed one.

In: a wrapped graph whose original takes exactly one image. Out: the same graph for any number of
images. If only the shapes that the exporter wrote down fix the batch, they become dynamic, and a
batch is computed at once. If this would change the graph's results, a Scan runs the graph image by
image.
"""

import numpy as np
import onnx_ir as ir

from export.foreign.wrapping import OWN, constant


def free_batch(model: ir.Model) -> None:
    """Make the batch axis dynamic in all stated shapes with a batch of one image."""
    graph = model.graph
    for node in graph:
        if node.op_type == "Reshape" and node.inputs[1] is not None:
            _free_reshape(model, node, node.inputs[1])
    inputs = set(graph.inputs)
    for node in graph.all_nodes():
        for value in node.outputs:
            if value not in inputs:
                value.shape = None


def _free_reshape(model: ir.Model, node: ir.Node, shape: ir.Value) -> None:
    if shape.const_value is None:
        return
    wanted = shape.const_value.numpy()
    if wanted.size > 1 and wanted[0] == 1:
        freed = np.concatenate([[0], wanted[1:]]).astype(np.int64)  # 0: copy the input's size
        name = f"{shape.name}/any_batch"
        node.replace_input_with(1, constant(model, name, freed))


def scan_batch(model: ir.Model, prepared: ir.Value, logits_source: ir.Value) -> None:
    """Run the nodes between two values once for each image of a batch."""
    graph = model.graph
    inside = [node for node in graph if (node.name or "").startswith(OWN)]
    after = [(user, index) for user, index in logits_source.uses() if user not in inside]
    pixels = ir.Value(name="scan/pixels", type=ir.TensorType(ir.DataType.FLOAT))
    axis = constant(model, "scan/axis", np.array([0], np.int64))
    one = ir.node("Unsqueeze", [pixels, axis], name="scan/one")
    one.outputs[0].name = "scan/one"
    for user, index in list(prepared.uses()):
        if user in inside:
            user.replace_input_with(index, one.outputs[0])
    row = constant(model, "scan/row", np.array([-1], np.int64))
    flat = ir.node("Reshape", [logits_source, row], name="scan/flat")
    flat.outputs[0].name = "scan/row_of_scores"
    flat.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph.remove(inside)
    body = ir.Graph([pixels], [flat.outputs[0]], nodes=[one, *inside, flat], name="one_image")
    scan = ir.node(
        "Scan",
        [prepared],
        attributes={"num_scan_inputs": 1, "body": body},
        name="scan",
    )
    scan.outputs[0].name = "scores_of_all"
    for user, index in after:
        user.replace_input_with(index, scan.outputs[0])
    graph.insert_before(after[0][0], [scan])
