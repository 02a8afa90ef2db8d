"""The output `embedding`: what the head is given, by hooks of PyTorch and by timm itself."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from contracts.model_config import read_config
from export import __main__
from export.classifier import Classifier
from export.embedding import add_embedding, embedding_width
from export.graph import WholeClassifier, open_graph, save_graph
from export.half import to_half
from export.parity import probe_images
from tests import exported
from tests.export import libraries, normalized, test_onnx, test_timm_library

TOLERANCE = 2e-5  # of the largest number, where that exceeds 1
Floats = npt.NDArray[np.float32]


def what_the_head_is_given(classifier: Classifier, images: npt.NDArray[np.uint8]) -> Floats:
    """By a hook of PyTorch on the module that is the head."""
    found: list[Tensor] = []
    name = "resnet.head.conv2d" if classifier.family == "bit" else "head"
    head = classifier.module.get_submodule(name)
    hook = head.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    with torch.inference_mode():
        WholeClassifier(classifier)(torch.from_numpy(images))
    hook.remove()
    features: Floats = found[0].numpy()
    return features


@pytest.mark.parametrize("case", exported.CASES)
def test_it_is_what_the_head_of_pytorch_is_given(case: str) -> None:
    classifier = exported.classifier(case)
    images = probe_images(classifier.image_size, 5)
    expected = what_the_head_is_given(classifier, images)
    session = open_graph(exported.graph(case))
    assert expected.std() > 1e-3
    for batch in (1, 3, 5):
        (found,) = session.run(["embedding"], {"image": images[:batch]})
        assert found.dtype == np.float32
        scale = max(1.0, float(np.abs(expected).max()))
        tolerance = TOLERANCE * scale
        np.testing.assert_allclose(found, expected[:batch], rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", exported.CASES)
def test_in_fp16_it_is_the_same_within_the_precision_and_still_fp32(
    case: str, tmp_path: Path
) -> None:
    model = ir.load(exported.graph(case))
    to_half(model)
    save_graph(model, tmp_path / "model.onnx")
    images = probe_images(exported.classifier(case).image_size, 3)
    expected = open_graph(exported.graph(case)).run(["embedding"], {"image": images})[0]
    found = open_graph(tmp_path / "model.onnx").run(["embedding"], {"image": images})[0]
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch16_gap_224"])
def test_of_timms_weights_it_is_timms_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = test_timm_library.small(name)
    folder = libraries.save_timm(model, tmp_path / "weights")
    repository = str(tmp_path / "repository")
    size = test_timm_library.inputs(model).shape[-1]
    flags = ["--checkpoint", str(folder), "--name", "m", "--repository", repository]
    monkeypatch.setattr(sys, "argv", ["export", *flags, "--image-size", str(size)])
    assert __main__.main() == 0
    config = read_config(tmp_path / "repository/m/config.pbtxt")
    parts = {key: config.parameters[key].string_value.split() for key in ("mean", "std")}
    mean, std = (np.array(parts[key], np.float64) for key in ("mean", "std"))
    images = probe_images(size, 3)
    given = torch.from_numpy(((images / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        theirs: Any = model
        expected = theirs.forward_head(theirs.forward_features(given), pre_logits=True).numpy()
    session = open_graph(tmp_path / "repository/m/1/model.onnx")
    (found,) = session.run(["embedding"], {"image": images})
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))
    assert [list(each.dims) for each in config.output if each.name == "embedding"] == [
        [expected.shape[1]]
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_of_a_foreign_graph_it_is_what_its_head_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = test_onnx.ResNetLike().eval()
    path = test_onnx.save(tmp_path / "theirs.onnx", network, test_onnx.NCHW)
    flags = ["--onnx", str(path), "--name", "m", "--repository", str(tmp_path / "repository")]
    more = [*normalized.NORMALIZED, "--activation", "softmax"]
    monkeypatch.setattr(sys, "argv", ["export", *flags, *more])
    assert __main__.main() == 0
    images = probe_images(test_onnx.SIZE, 4)
    given = ((images / 255 - np.array(normalized.MEAN)) / np.array(normalized.STD)).astype(
        np.float32
    )
    found: list[Tensor] = []
    network.head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    with torch.inference_mode():
        network(torch.from_numpy(given).permute(0, 3, 1, 2))
    session = open_graph(tmp_path / "repository/m/1/model.onnx")
    (ours,) = session.run(["embedding"], {"image": images})
    np.testing.assert_allclose(ours, found[0].numpy(), rtol=0, atol=2e-5)


def graph_of(*nodes: onnx.NodeProto) -> ir.Model:
    """A graph of these nodes from `x` [N, 4, 6] to `logits` [N, 3]."""
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, np.ones(shape, np.float32).ravel())
        for name, shape in (
            ("square", (6, 6)),
            ("w", (6, 3)),
            ("turned", (3, 6)),
            ("bias", (3,)),
            ("temperature", ()),
        )
    ]
    shape = helper.make_tensor("flat", TensorProto.INT64, (1,), [1])
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [*weights, shape],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, strict_mode=True))


MEAN = helper.make_node("ReduceMean", ["x", "flat"], ["mean"], keepdims=0)


@pytest.mark.parametrize(
    ("nodes", "width"),
    [
        ([MEAN, helper.make_node("MatMul", ["mean", "w"], ["logits"])], 6),
        ([MEAN, helper.make_node("Gemm", ["mean", "turned", "bias"], ["logits"], transB=1)], 6),
        (
            [
                MEAN,
                helper.make_node("MatMul", ["mean", "w"], ["product"]),
                helper.make_node("Add", ["bias", "product"], ["sum"]),
                helper.make_node("Identity", ["sum"], ["logits"]),
            ],
            6,
        ),
        # A calibrated model: its logits are divided by a temperature.
        (
            [
                MEAN,
                helper.make_node("MatMul", ["mean", "w"], ["product"]),
                helper.make_node("Add", ["product", "bias"], ["sum"]),
                helper.make_node("Div", ["sum", "temperature"], ["logits"]),
            ],
            6,
        ),
        # Each class is divided by a number of its own.
        (
            [
                MEAN,
                helper.make_node("MatMul", ["mean", "w"], ["product"]),
                helper.make_node("Div", ["product", "bias"], ["logits"]),
            ],
            None,
        ),
        # The head reads each token, and their classes are averaged.
        (
            [
                helper.make_node("MatMul", ["x", "w"], ["each"]),
                helper.make_node("ReduceMean", ["each", "flat"], ["logits"], keepdims=0),
            ],
            None,
        ),
        # Two products of one embedding: neither is the head.
        (
            [
                MEAN,
                helper.make_node("MatMul", ["mean", "w"], ["one"]),
                helper.make_node("MatMul", ["mean", "w"], ["two"]),
                helper.make_node("Add", ["one", "two"], ["logits"]),
            ],
            None,
        ),
        # Something is done to the numbers of the head.
        (
            [
                MEAN,
                helper.make_node("MatMul", ["mean", "w"], ["product"]),
                helper.make_node("Relu", ["product"], ["logits"]),
            ],
            None,
        ),
    ],
)
def test_nothing_is_guessed(nodes: list[onnx.NodeProto], width: int | None) -> None:
    model = graph_of(*nodes)
    assert add_embedding(model) == width
    assert embedding_width(model) == width
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    if width is not None:
        data = ir.to_proto(model).SerializeToString()
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        x = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
        (found,) = session.run(["embedding"], {"x": x})
        np.testing.assert_allclose(found, x.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(("pixels", "width"), [(1, 5), (2, None)])
def test_a_convolution_of_one_pixel_is_a_head(pixels: int, width: int | None) -> None:
    """That of several pixels has an answer for each."""
    weights = np.random.default_rng(1).normal(size=(3, 5, 1, 1)).astype(np.float32)
    made = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["positive"]),
            helper.make_node("Conv", ["positive", "w"], ["map"]),
            helper.make_node("Flatten", ["map"], ["logits"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5, pixels, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3 * pixels])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    assert add_embedding(model) == width
    if width is not None:
        data = ir.to_proto(model).SerializeToString()
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        x = np.random.default_rng(0).normal(size=(2, 5, 1, 1)).astype(np.float32)
        (found,) = session.run(["embedding"], {"x": x})
        np.testing.assert_array_equal(found, np.maximum(x, 0).reshape(2, 5))
