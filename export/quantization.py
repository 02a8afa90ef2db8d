"""INT8: matrix products and convolutions on 8-bit integers, stated in the graph itself.

In: a traced graph and the limits of its activations. Out: the same graph with QuantizeLinear and
DequantizeLinear nodes around the layers that become faster. Both ONNX Runtime's CPU kernels and
TensorRT fuse this form: symmetric signed activations (per tensor) and weights (per output channel),
biases left in FP32. If a rectifier (ReLU, ReLU6) follows a convolution, the scale of the
convolution's output covers only the values that the rectifier passes on; the rectifier would cut
off all other values anyway. ONNX Runtime makes the activations unsigned by itself where the CPU's
instructions need that.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor, nn

from export.calibration import LEVELS
from export.graph import initializer_array, remove_unused
from export.models.layers import TokenMlpBlock, gelu

# Products with weights are quantised. Products of two activations (attention) are not: they are a
# few per cent of the work and lose the most accuracy.
_OPS = ("MatMul", "Conv")


class TransposedTokenMlpBlock(nn.Module):
    """A token-mixing MLP with its weights on the right: [N, S, C] -> [N, S, C].

    Integer kernels for CPUs pack constant right-hand sides in advance, and need the unsigned
    activations on the left. This saves far more time than the two transpositions cost.
    """

    def __init__(self, block: TokenMlpBlock) -> None:
        super().__init__()
        self.gelu_form = block.gelu_form
        self.kernels = nn.ParameterList(
            nn.Parameter(dense.kernel.T.contiguous(), requires_grad=False)
            for dense in (block.Dense_0, block.Dense_1)
        )
        self.biases = nn.ParameterList(
            nn.Parameter(dense.bias[:, 0].contiguous(), requires_grad=False)
            for dense in (block.Dense_0, block.Dense_1)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.matmul(x.transpose(1, 2), self.kernels[0]) + self.biases[0]
        y = torch.matmul(gelu(y, self.gelu_form), self.kernels[1]) + self.biases[1]
        transposed: Tensor = y.transpose(1, 2)
        return transposed


def put_weights_right(module: nn.Module) -> None:
    """Change a module in place so that every weight is the right-hand side of its product."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, TokenMlpBlock):
                setattr(parent, name, TransposedTokenMlpBlock(child))


def layers(model: ir.Model) -> list[ir.Node]:
    """The nodes to quantise: products with weights, except the first, the last and depthwise ones.

    The exceptions are a few per cent of the work. The first layer reads pixels, the last one gives
    the answer. A depthwise convolution is a sum of few products: it loses the most accuracy and is
    no faster with integers.
    """
    found = [node for node in model.graph if node.op_type in _OPS and _is_weight(node.inputs[1])]
    return [node for node in found[1:-1] if not _is_depthwise(node)]


def activations(model: ir.Model) -> list[str]:
    """The names of the activations whose limits `quantize` needs."""
    names: dict[str, None] = {}
    for node in layers(model):
        names[_named(node.inputs[0])[0]] = None
        if node.op_type == "Conv":
            names[_named(node.outputs[0])[0]] = None
            _, rectified = _rectifier(node)
            if rectified is not None:
                names[rectified] = None
    return list(names)


def layer_names(model: ir.Model) -> list[str]:
    """The layers that `quantize` changes, each by the name of its output."""
    return [_named(node.outputs[0])[0] for node in layers(model)]


def quantize(model: ir.Model, limits: dict[str, float], kept: Collection[str] = ()) -> None:
    """Change the graph in place; `limits` are the magnitudes that become 127, by name.

    Layers in `kept`, by the names of their outputs, stay in FP32.
    """
    quantized: dict[str, ir.Value] = {}
    for node in layers(model):
        if node.outputs[0].name in kept:
            continue
        name, source = _named(node.inputs[0])
        if name not in quantized:
            down, up = _pair(model, source, limits[name])
            model.graph.insert_before(node, [down, up])
            quantized[name] = up.outputs[0]
        node.replace_input_with(0, quantized[name])
        node.replace_input_with(1, _int8_weights(model, node))
        if node.op_type == "Conv":
            # Integer convolutions exist only with integer outputs.
            _requantize_output(model, node, limits)
    remove_unused(model)


def part_biases(model: ir.Model) -> None:
    """Move the biases of the convolutions to quantise into Add nodes, before calibration.

    An integer convolution cannot have a bias in FP32.
    """
    for node in layers(model):
        _part_bias(model, node)


def _part_bias(model: ir.Model, node: ir.Node) -> None:
    if node.op_type != "Conv" or len(node.inputs) < 3 or (bias := node.inputs[2]) is None:
        return
    name, output = _named(node.outputs[0])
    axes = (1, -1, *[1] * (initializer_array(_named(node.inputs[1])[1]).ndim - 2))
    column = _constant(model, f"{name}/bias", initializer_array(bias).reshape(axes[1:]))
    users = list(output.uses())
    added = ir.node("Add", [output, column], name=f"{name}/add_bias")
    added.outputs[0].name = f"{name}/with_bias"
    added.outputs[0].type, added.outputs[0].shape = output.type, output.shape
    for user, index in users:
        user.replace_input_with(index, added.outputs[0])
    for index, value in enumerate(model.graph.outputs):
        if value is output:
            model.graph.outputs[index] = added.outputs[0]
    model.graph.insert_after(node, [added])
    node.resize_inputs(2)


def _rectifier(node: ir.Node) -> tuple[npt.NDArray[np.float32], str | None]:
    """The bias of a convolution, and the name of the rectifier's output if a rectifier follows.

    The bias is in the Add node that `part_biases` has put after the convolution. The output of a
    rectifier is at least 0.
    """
    biases, value = np.zeros(1, np.float32), node.outputs[0]
    after = _only_user(value)
    if after is not None and after.op_type == "Add" and _is_weight(after.inputs[1]):
        constant = initializer_array(_named(after.inputs[1])[1])
        if constant.size != max(constant.shape, default=1):
            return biases, None
        biases, value = constant, after.outputs[0]
        after = _only_user(value)
    if after is None or after.inputs[0] is not value:
        return biases, None
    if after.op_type == "Relu" or (after.op_type == "Clip" and _lowest(after) >= 0):
        return biases, _named(after.outputs[0])[0]
    return biases, None


def _only_user(value: ir.Value) -> ir.Node | None:
    users = list(value.uses())
    return users[0].node if len(users) == 1 and not value.is_graph_output() else None


def _lowest(clip: ir.Node) -> float:
    lowest = clip.inputs[1] if len(clip.inputs) > 1 else None
    return float(initializer_array(lowest)) if _is_weight(lowest) and lowest else -np.inf


def _is_depthwise(node: ir.Node) -> bool:
    """Whether each output of a convolution comes from one channel alone: weights [K, 1, h, w]."""
    groups = node.attributes.get("group")
    weights = node.inputs[1]
    one = weights is not None and weights.shape is not None and weights.shape[1] == 1
    return groups is not None and groups.as_int() > 1 and one


def _is_weight(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer()


def _named(value: ir.Value | None) -> tuple[str, ir.Value]:
    if value is None or value.name is None:
        raise ValueError("a traced graph has no unnamed values")
    return value.name, value


def _constant(model: ir.Model, name: str, array: npt.NDArray[Any]) -> ir.Value:
    if name not in model.graph.initializers:
        model.graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(array)))
    return model.graph.initializers[name]


def _pair(model: ir.Model, source: ir.Value, limit: float) -> tuple[ir.Node, ir.Node]:
    """QuantizeLinear and DequantizeLinear of one activation."""
    name = source.name
    scale = _constant(model, f"{name}/scale", np.array(limit / LEVELS, np.float32))
    zero = _constant(model, "zero_int8", np.array(0, np.int8))
    down = ir.node("QuantizeLinear", [source, scale, zero], name=f"{name}/quantize")
    down.outputs[0].name = f"{name}/int8"
    up = ir.node("DequantizeLinear", [down.outputs[0], scale, zero], name=f"{name}/dequantize")
    up.outputs[0].name = f"{name}/dequantized"
    return down, up


def _requantize_output(model: ir.Model, node: ir.Node, limits: dict[str, float]) -> None:
    name, output = _named(node.outputs[0])
    limit = limits[name]
    biases, rectified = _rectifier(node)
    if rectified is not None:
        # The scale must reach the rectifier's highest value at the upper end, and its zero at the
        # lower end.
        useful = max(limits[rectified] - float(biases.min()), float(biases.max()))
        limit = min(limit, max(useful, limit / LEVELS))
    users = list(output.uses())
    down, up = _pair(model, output, limit)
    for user, index in users:
        user.replace_input_with(index, up.outputs[0])
    model.graph.insert_after(node, [down, up])


def _int8_weights(model: ir.Model, node: ir.Node) -> ir.Value:
    """The node's weights as int8 with one scale per output channel, dequantised in the graph."""
    name, source = _named(node.inputs[1])
    array = initializer_array(source)
    axis = 0 if node.op_type == "Conv" else array.ndim - 1
    others = tuple(index for index in range(array.ndim) if index != axis)
    # A channel of zeros stays zeros at any scale.
    limits = np.maximum(np.abs(array).max(axis=others, keepdims=True), np.float32(1e-12))
    rounded = np.rint(array / limits * LEVELS).astype(np.int8)
    scales = _constant(model, f"{name}/scale", (limits / LEVELS).astype(np.float32).ravel())
    zeros = _constant(model, f"{name}/zero", np.zeros(array.shape[axis], np.int8))
    up = ir.node(
        "DequantizeLinear",
        [_constant(model, f"{name}/int8", rounded), scales, zeros],
        attributes={"axis": axis},
        name=f"{name}/dequantize",
    )
    up.outputs[0].name = f"{name}/dequantized"
    model.graph.insert_before(node, [up])
    return up.outputs[0]
