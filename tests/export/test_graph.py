"""The exported graph: the contract, the official logits, parity and its gate, determinism."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from export import graph as graphs
from export.classifier import Classifier
from export.parity import ParityError, activated, check_parity, probe_images, torch_logits
from tests import exported


@pytest.mark.parametrize("case", exported.CASES)
def test_the_contract(case: str) -> None:
    classifier = exported.classifier(case)
    model = onnx.load(exported.graph(case))
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", graphs.OPSET)]
    size = classifier.image_size
    assert [signature(value) for value in model.graph.input] == [
        ("image", TensorProto.UINT8, ["batch", size, size, 3])
    ]
    assert [signature(value) for value in model.graph.output] == [
        ("logits", TensorProto.FLOAT, ["batch", classifier.num_classes]),
        ("probabilities", TensorProto.FLOAT, ["batch", classifier.num_classes]),
        ("embedding", TensorProto.FLOAT, ["batch", width_of(classifier)]),
    ]
    readers = [node.op_type for node in model.graph.node if "image" in node.input]
    assert readers == ["Cast"], "TensorRT takes UINT8 inputs only through a Cast"


@pytest.mark.parametrize("case", exported.CASES)
def test_nothing_is_dead_and_nothing_tells_of_the_machine(case: str) -> None:
    model = onnx.load(exported.graph(case))
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    assert not {"Constant", "Identity", "Dropout"} & {node.op_type for node in model.graph.node}
    assert not model.metadata_props
    assert not model.functions
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    content = exported.graph(case).read_bytes()
    assert str(Path.home()).encode() not in content
    assert b".py" not in content


@pytest.mark.parametrize("case", ["mixer_tiny", "vit_tiny_token"])
def test_layer_norms_and_gelus_are_single_nodes(case: str) -> None:
    classifier = exported.classifier(case)
    operators = [node.op_type for node in onnx.load(exported.graph(case)).graph.node]
    blocks = sum(name.endswith("LayerNorm_0") for name, _ in classifier.module.named_modules())
    assert operators.count("LayerNormalization") == 2 * blocks + 1
    assert operators.count("Gelu") == (2 if classifier.family == "mixer" else 1) * blocks
    assert operators.count("Transpose") == (1 if classifier.family == "mixer" else 4 * blocks + 1)


@pytest.mark.parametrize("case", exported.CASES)
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_logits_are_those_of_the_official_code(case: str, batch: int) -> None:
    images, expected = exported.golden_logits(case)
    session = graphs.open_graph(exported.graph(case))
    logits, probabilities, _ = session.run(None, {"image": images[:batch]})
    tolerance = 5e-5 if case == "bit_tiny" else 2e-5
    assert np.abs(logits - expected[:batch]).max() <= tolerance
    np.testing.assert_allclose(
        probabilities, activated(expected[:batch], "softmax"), atol=tolerance
    )


@pytest.mark.parametrize("case", ["mixer_tiny", "vit_tiny_token", "bit_tiny"])
def test_an_answer_does_not_depend_on_its_batch(case: str) -> None:
    images = probe_images(exported.classifier(case).image_size, 7)
    session = graphs.open_graph(exported.graph(case))
    together = session.run(["logits"], {"image": images})[0]
    alone = [session.run(["logits"], {"image": image[None]})[0][0] for image in images]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    again = tmp_path / "model.onnx"
    graphs.save_graph(graphs.build_graph(exported.classifier("mixer_tiny")), again)
    assert again.read_bytes() == exported.graph("mixer_tiny").read_bytes()


def test_weights_beyond_2_gib_lie_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "EXTERNAL_DATA_BYTES", 0)
    path = tmp_path / "model.onnx"
    graphs.save_graph(ir.load(exported.graph("mixer_tiny")), path)
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    assert path.stat().st_size < exported.graph("mixer_tiny").stat().st_size / 2
    images, expected = exported.golden_logits("mixer_tiny")
    logits = graphs.open_graph(path).run(["logits"], {"image": images})[0]
    assert np.abs(logits - expected).max() <= 2e-5


def test_parity_accepts_the_graph() -> None:
    session = graphs.open_graph(exported.graph("mixer_tiny"))
    assert 0 < check_parity(exported.classifier("mixer_tiny"), session) < 2e-5


@pytest.mark.parametrize("change", [1e-3, np.nan])
def test_parity_refuses_other_weights(change: float) -> None:
    model = onnx.load(exported.graph("mixer_tiny"))
    tensor = next(t for t in model.graph.initializer if t.name == "classifier.head.bias")
    values = onnx.numpy_helper.to_array(tensor) + np.float32(change)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(ParityError, match="logits differ from PyTorch's"):
        check_parity(exported.classifier("mixer_tiny"), session_of(model))


def test_parity_refuses_other_probabilities() -> None:
    model = onnx.load(exported.graph("mixer_tiny"))
    softmax_node = next(node for node in model.graph.node if node.op_type == "Softmax")
    softmax_node.op_type = "LogSoftmax"
    with pytest.raises(ParityError, match="probabilities"):
        check_parity(exported.classifier("mixer_tiny"), session_of(model))


def test_parity_refuses_another_number_of_classes() -> None:
    other = exported.classifier("mixer_testing")
    other = dataclasses.replace(other, module=torch.nn.Sequential(other.module, Narrow()))
    session = graphs.open_graph(exported.graph("mixer_testing"))
    with pytest.raises(ParityError, match="shape"):
        check_parity(other, session)


def test_probe_images_are_noise_and_photo_like() -> None:
    images = probe_images(64, 4)
    assert images.shape == (4, 64, 64, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, probe_images(64, 4))
    steps = np.abs(np.diff(images.astype(int), axis=1)).mean(axis=(1, 2, 3))
    assert steps[0] > 60
    assert (steps[1:] < 40).all()
    logits = torch_logits(exported.classifier("mixer_tiny"), probe_images(32, 4))
    assert len(np.unique(logits, axis=0)) == 4


class Narrow(torch.nn.Module):
    """Drops the last class."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, :-1]


def width_of(classifier: Classifier) -> int:
    """What the head reads: the rows of its kernel."""
    name = "resnet.head.conv2d" if classifier.family == "bit" else "head"
    return classifier.module.get_parameter(f"{name}.kernel").shape[0]


def signature(value: onnx.ValueInfoProto) -> tuple[str, int, list[str | int]]:
    """Name, element type and shape of an input or output."""
    tensor = value.type.tensor_type
    return (
        value.name,
        tensor.elem_type,
        [dim.dim_param or dim.dim_value for dim in tensor.shape.dim],
    )


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Of a graph in memory."""
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
