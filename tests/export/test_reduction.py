"""INT8 of networks that lose by it: scales behind rectifiers, and layers that stay in FP32."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from contracts.gate import Judgement
from contracts.repository import INPUT, LOGITS
from export.calibration import LEVELS
from export.graph import open_graph
from export.parity import Pixels
from export.precision import Images
from export.reduction import reduced

SIDE, WIDTH, CLASSES = 8, 32, 10
BIASES = np.linspace(-3, 2, 16, dtype=np.float32)
Array = npt.NDArray[np.float32]


def graph(nodes: list[onnx.NodeProto], constants: dict[str, npt.NDArray[Any]]) -> ir.Model:
    """A classifier of uint8 [N, 8, 8, 3] from nodes between `x`, of 0 to 1, and `logits`."""
    constants = constants | {"255": np.array(255, np.float32)}
    head = [
        helper.make_node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "255"], ["x"]),
    ]
    made = helper.make_graph(
        head + nodes,
        "classifier",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", 20)
    model = helper.make_model(made, opset_imports=[opset], ir_version=9)
    onnx.checker.check_model(model)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def normal(*shape: int, seed: int) -> Array:
    scale = np.prod(shape[:-1]) ** -0.5
    array: Array = (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)
    return array


def images() -> Images:
    pixels = np.random.default_rng(1).integers(0, 256, (200, SIDE, SIDE, 3), dtype=np.uint8)
    return Images(pixels[:100], pixels[100:])


def judged(model: ir.Model, folder: Path, *, search: bool) -> tuple[Judgement, Path]:
    """The judgement of a graph in INT8 against itself in FP32, and the file of it."""
    ir.save(model, folder / "fp32.onnx")
    full = open_graph(folder / "fp32.onnx")

    def right(pixels: Pixels) -> Array:
        logits: Array = full.run([LOGITS], {INPUT: pixels})[0]
        return logits

    path = folder / "1" / "model.onnx"
    path.parent.mkdir(exist_ok=True)
    return reduced(model, "int8", images(), path, right, search=search), path


def chain(outlier: float) -> ir.Model:
    """Five products; what enters the third has one channel `outlier` times the others."""
    scales = np.ones(WIDTH, np.float32)
    scales[0] = outlier
    constants: dict[str, npt.NDArray[Any]] = {
        "shape": np.array([-1, SIDE * SIDE * 3], np.int64),
        "a": normal(SIDE * SIDE * 3, WIDTH, seed=2),
        "b": normal(WIDTH, WIDTH, seed=3),
        "scales": scales,
        "c": normal(WIDTH, WIDTH, seed=4) / scales[:, None],
        "d": normal(WIDTH, WIDTH, seed=5),
        "e": normal(WIDTH, CLASSES, seed=6),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "a"], ["one"]),
        helper.make_node("Tanh", ["one"], ["tanh"]),
        helper.make_node("MatMul", ["tanh", "b"], ["two"]),
        helper.make_node("Mul", ["two", "scales"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "c"], ["three"]),
        helper.make_node("MatMul", ["three", "d"], ["four"]),
        helper.make_node("MatMul", ["four", "e"], ["five"]),
        helper.make_node("MatMul", ["five", "f"], [LOGITS]),
    ]
    return graph(nodes, constants | {"f": np.eye(CLASSES, dtype=np.float32)})


def test_the_dearest_layer_stays_in_fp32_where_the_gate_would_be_missed(tmp_path: Path) -> None:
    without, _ = judged(chain(1000.0), tmp_path, search=False)
    assert not without.passed
    judgement, path = judged(chain(1000.0), tmp_path, search=True)
    assert judgement.passed
    assert judgement.kept == 1
    assert "1 layers stay in FP32" in str(judgement)
    products = {node.output[0]: node for node in onnx.load(path).graph.node}
    assert products["three"].input[0] == "scaled", "the layer with the outlier"
    assert products["two"].input[0].endswith("dequantized")


def test_no_layer_stays_where_none_has_to(tmp_path: Path) -> None:
    judgement, path = judged(chain(1.0), tmp_path, search=True)
    assert judgement.kept == 0
    assert "stay in FP32" not in str(judgement)
    products = {node.output[0]: node for node in onnx.load(path).graph.node}
    assert products["three"].input[0].endswith("dequantized")


def mobile(wide: Array, groups: int) -> ir.Model:
    """Three convolutions: of the pixels, `wide` with ReLU6 behind it, and the last one."""
    constants: dict[str, npt.NDArray[Any]] = {
        "stem": normal(16, 3, 3, 3, seed=1),
        "wide": wide,
        "biases": BIASES,
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
        "last": normal(CLASSES, 16, 1, 1, seed=3),
        "axes": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "stem"], ["one"], pads=[1, 1, 1, 1]),
        helper.make_node(
            "Conv", ["one", "wide", "biases"], ["two"], group=groups, pads=[1, 1, 1, 1]
        ),
        helper.make_node("Clip", ["two", "low", "high"], ["three"]),
        helper.make_node("Conv", ["three", "last"], ["four"]),
        helper.make_node("ReduceMean", ["four", "axes"], [LOGITS], keepdims=0),
    ]
    return graph(nodes, constants)


def test_a_scale_spans_what_the_rectifier_lets_through(tmp_path: Path) -> None:
    """The sums reach far beyond ReLU6, as in mobile networks."""
    judgement, path = judged(mobile(60 * normal(16, 16, 3, 3, seed=2), 1), tmp_path, search=False)
    assert judgement.passed
    model = onnx.load(path)
    arrays = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    (down,) = (n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "two")
    span = float(arrays[down.input[1]]) * LEVELS
    assert span <= 6 - BIASES.min() + 1e-3
    probed = onnx.load(tmp_path / "fp32.onnx")
    probed.graph.output.append(onnx.ValueInfoProto(name="two"))
    onnx.save(probed, tmp_path / "probed.onnx")
    (sums,) = open_graph(tmp_path / "probed.onnx").run(["two"], {INPUT: images().held_back})
    assert np.abs(sums).max() > 2 * span, "this network does not try it"


@pytest.mark.parametrize(("groups", "quantized"), [(1, True), (4, True), (16, False)])
def test_a_depthwise_convolution_stays_in_fp32(
    groups: int, quantized: bool, tmp_path: Path
) -> None:
    """One of fewer groups than channels does not."""
    wide = normal(16, 16 // groups, 3, 3, seed=2)
    _, path = judged(mobile(wide, groups), tmp_path, search=False)
    names = [node.input[0] for node in onnx.load(path).graph.node if "wide" in str(node.input)]
    found = any(name.startswith("wide/int8") for name in names)
    assert found is quantized
