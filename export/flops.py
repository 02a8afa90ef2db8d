"""The cost of each variant: parameters and floating-point operations per image.

In: the table of variants. Out: rows, counted on the modules themselves. No memory is allocated: the
modules are on PyTorch's meta device.
"""

import dataclasses
import math
from collections.abc import Iterator

import onnx
import onnx_ir as ir
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from contracts.variants import VARIANTS
from export.models import build, network_of


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of one variant at its own image size."""

    variant: str
    image_size: int  # pixels per side
    parameters: int
    flops: int  # per image; a multiply-add counts as two


def variant_costs() -> Iterator[Cost]:
    """A row for every variant of every family; each takes up to a second or two."""
    for name, row in VARIANTS.items():
        with torch.device("meta"):
            module = build(network_of(name), row.image_size)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        flops = count_flops(module, row.image_size)
        yield Cost(name, row.image_size, parameters, flops)


def count_flops(module: nn.Module, image_size: int) -> int:
    """The FLOPs of the products and convolutions for one image: about 99 % of the work."""
    shapes = {name: parameter.to("meta") for name, parameter in module.named_parameters()}
    image = torch.empty(1, image_size, image_size, 3, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(module, shapes, (image,))
    flops: int = counter.get_total_flops()
    return flops


def graph_flops(model: ir.Model) -> int:
    """The FLOPs of an ONNX graph's matrix products and convolutions for one image.

    Nodes whose shapes are unknown are not counted. Nodes within an If, a Loop or a Scan are counted
    as if they ran once.
    """
    proto = ir.to_proto(model)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    known = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    return sum(_node_flops(node) for node in known.graph.all_nodes())


def _node_flops(node: ir.Node) -> int:
    if node.op_type not in ("Conv", "MatMul", "Gemm") or len(node.inputs) < 2:
        return 0
    outputs, weights = _sizes(node.outputs[0]), _sizes(node.inputs[1])
    if not outputs or not weights:
        return 0
    if node.op_type == "Conv":
        return 2 * math.prod(outputs) * math.prod(weights[1:])
    inner = weights[1] if node.op_type == "Gemm" and _transposed(node) else weights[-2]
    return 2 * math.prod(outputs) * inner


def _sizes(value: ir.Value | None) -> list[int]:
    """The sizes of a tensor; empty where they are not known. An unknown batch counts as 1."""
    if value is None or value.shape is None or len(value.shape) < 2:
        return []
    sizes = [size if isinstance(size, int) else 1 for size in value.shape]
    return [max(size, 1) for size in sizes]


def _transposed(node: ir.Node) -> bool:
    return "transB" in node.attributes and node.attributes["transB"].as_int() == 1
