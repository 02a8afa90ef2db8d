"""export/foreign/reading.py: graphs that cannot be served are refused in a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.export.command_line import Export
from tests.export.normalized import NORMALIZED


def value(name: str, dtype: int, shape: list[Any]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, dtype, shape)


def graph(inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
    """Every output is made of the first input; what matters is their shapes."""
    nodes = [onnx.helper.make_node("Identity", [inputs[0].name], [each.name]) for each in outputs]
    made = onnx.helper.make_graph(nodes, "g", inputs, outputs)
    return onnx.helper.make_model(
        made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10
    )


F, H, D, I = (  # noqa: E741 - ONNX's letters
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.INT64,
)


IMAGE = value("x", F, ["n", 3, 8, 8])
Y = value("y", F, ["n", 5])
BAD: dict[str, tuple[onnx.ModelProto, tuple[str, ...], str]] = {
    "two inputs": (
        graph([IMAGE, value("mask", F, ["n", 8])], [Y]),
        NORMALIZED,
        "the graph takes 2 inputs (x float32[n, 3, 8, 8], mask float32[n, 8]), expected one image",
    ),
    "a detector": (
        graph([IMAGE], [value("boxes", F, ["n", 9, 4]), value("scores", F, ["n", 9])]),
        NORMALIZED,
        "the graph has 2 outputs (boxes float32[n, 9, 4], scores float32[n, 9]), expected one",
    ),
    "half": (
        graph([value("x", H, ["n", 3, 8, 8])], [value("y", H, ["n", 5])]),
        NORMALIZED,
        "the graph takes x float16[n, 3, 8, 8], expected float32 or uint8",
    ),
    "double": (
        graph([value("x", D, ["n", 3, 8, 8])], [value("y", D, ["n", 5])]),
        NORMALIZED,
        "the graph takes x float64[n, 3, 8, 8], expected float32 or uint8",
    ),
    "no image": (
        graph([value("x", F, ["n", 12])], [Y]),
        NORMALIZED,
        "the graph takes x float32[n, 12], expected images of 4 dimensions",
    ),
    "grey": (
        graph([value("x", F, ["n", 1, 8, 8])], [Y]),
        NORMALIZED,
        "the graph takes x float32[n, 1, 8, 8], expected images of 3 channels",
    ),
    "no mean": (graph([IMAGE], [Y]), (), "--mean R G B --std R G B of pixel / 255"),
    "no activation": (
        graph([IMAGE], [Y]),
        NORMALIZED,
        "--activation softmax if it chooses one class, sigmoid if",
    ),
    "no layout": (
        graph([value("x", F, ["n", 3, 8, 3])], [Y]),
        NORMALIZED,
        "does not say where the channels are: --layout nchw or nhwc",
    ),
    "no size": (
        graph([value("x", F, ["n", 3, "h", "w"])], [Y]),
        NORMALIZED,
        "images of any size: --image-size says which",
    ),
    "a segmenter": (
        graph([IMAGE], [value("y", F, ["n", 5, 8, 8])]),
        NORMALIZED,
        "the graph gives y float32[n, 5, 8, 8], expected scores [N, classes]: it is no classifier",
    ),
    "an index": (
        graph([IMAGE], [value("y", I, ["n", 5])]),
        NORMALIZED,
        "the graph gives y int64[n, 5], expected float32 scores",
    ),
    "another output": (
        graph([IMAGE], [Y]),
        (*NORMALIZED, "--output", "z"),
        "--output z: the graph has the outputs y float32[n, 5]",
    ),
    "eight at once": (
        graph([value("x", F, [8, 3, 8, 8])], [value("y", F, [8, 5])]),
        (*NORMALIZED, "--activation", "softmax"),
        "takes 8 images at once and no other number",
    ),
    "another layout": (
        graph([IMAGE], [Y]),
        (*NORMALIZED, "--layout", "nhwc"),
        "--layout nhwc: the graph takes x float32[n, 3, 8, 8], which has 8 channels there",
    ),
    "an oblong": (
        graph([value("x", F, ["n", 3, 8, 16])], [Y]),
        (*NORMALIZED, "--activation", "softmax"),
        "the graph takes images of 16×8 pixels, expected a square",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_served_is_refused_in_a_sentence(
    case: str, tmp_path: Path, export: Export
) -> None:
    model, flags, message = BAD[case]
    path = tmp_path / "theirs.onnx"
    path.write_bytes(model.SerializeToString())
    status, _, err = export("--onnx", str(path), "--name", "theirs", *flags)
    assert status == 2
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: --onnx {path}: ")
    assert message in errors[0]
    assert not (tmp_path / "repository" / "theirs").exists()


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x0a" * 50])
def test_files_that_are_no_graph(content: bytes, tmp_path: Path, export: Export) -> None:
    path = tmp_path / "theirs.onnx"
    path.write_bytes(content)
    status, _, err = export("--onnx", str(path), "--name", "theirs", *NORMALIZED)
    assert status == 2, err
    assert "expected an ONNX graph" in err
    status, _, err = export("--onnx", str(tmp_path / "none"), "--name", "theirs", *NORMALIZED)
    assert status == 2
    assert "no such file" in err


def multiplied(*opsets: onnx.OperatorSetIdProto) -> onnx.ModelProto:
    """The input times weights."""
    weights = onnx.numpy_helper.from_array(np.ones((1, 3, 8, 8), np.float32), "w")
    node = onnx.helper.make_node("Mul", ["x", "w"], ["y"])
    made = onnx.helper.make_graph([node], "g", [IMAGE], [IMAGE], initializer=[weights])
    made.output[0].name = "y"
    return onnx.helper.make_model(made, opset_imports=opsets, ir_version=8)


def test_an_old_graph_whose_weights_are_missing_is_not_blamed_on_its_opset(
    tmp_path: Path, export: Export
) -> None:
    path = tmp_path / "theirs.onnx"
    model = multiplied(onnx.helper.make_opsetid("", 11))
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    (tmp_path / "w.data").unlink()
    status, _, err = export("--onnx", str(path), "--name", "theirs", *NORMALIZED)
    assert status == 2, err
    assert "w.data" in err
    assert "newer opset" not in err


@pytest.mark.parametrize(
    ("opsets", "shown"),
    [
        ([("ai.onnx.ml", 3), ("", 1)], "its operators are of set 1,"),
        ([], "expected an ONNX graph, found no version of its operators"),
    ],
)
def test_operators_that_cannot_be_converted_are_named_by_their_own_set(
    opsets: list[tuple[str, int]], shown: str, tmp_path: Path, export: Export
) -> None:
    path = tmp_path / "theirs.onnx"
    model = multiplied(*(onnx.helper.make_opsetid(*each) for each in opsets))
    path.write_bytes(model.SerializeToString())
    status, _, err = export("--onnx", str(path), "--name", "theirs", *NORMALIZED)
    assert status == 2, err
    assert shown in err
