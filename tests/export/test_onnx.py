"""`python -m export --onnx`: what others made is published as it computes."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from contracts.model_config import parameters, read_config
from contracts.resizing import Pixels
from export.parity import probe_images
from tests.export.command_line import Export
from tests.export.normalized import MEAN, NORMALIZED, STD
from tests.stack import client_of, running_stack

SIZE, CLASSES = 32, 6


class ResNetLike(nn.Module):
    """Convolutions with BatchNorm, a skip connection, pooling, a dense head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.middle = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.last = nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = x + functional.relu(self.middle(x))
        x = functional.relu(self.last(x)).mean((2, 3))
        y: Tensor = self.head(x)
        return y


class Wrapped(nn.Module):
    """Something before and after a network."""

    def __init__(self, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.before, self.network, self.after = before, ResNetLike(), after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.network(self.before(x)))


class Attentive(nn.Module):
    """A class token is put before the tokens, which a fixed batch of one makes a constant of."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        y: Tensor = self.head(self.block(x)[:, 0])
        return y


def same(x: Tensor) -> Tensor:
    return x


def from_bytes(x: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] to what the network wants."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return ((x.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def save(
    path: Path, module: nn.Module, example: Tensor, *, opset: int = 18, batch: bool = True
) -> Path:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.0, max(1, parameter[0].numel()) ** -0.5)
    torch.onnx.export(
        module.eval(),
        (example,),
        path,
        dynamo=False,
        opset_version=opset,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "n"}} if batch else None,
    )
    return path


NCHW = torch.zeros(1, 3, SIZE, SIZE)
NHWC = torch.zeros(1, SIZE, SIZE, 3)
BYTES = torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)


# What is made, and the flags that publish it.
GOOD: dict[str, tuple[Callable[[], nn.Module], Tensor, dict[str, Any], tuple[str, ...]]] = {
    "NCHW": (ResNetLike, NCHW, {}, (*NORMALIZED, "--activation", "softmax")),
    "opset 13": (ResNetLike, NCHW, {"opset": 13}, (*NORMALIZED, "--activation", "softmax")),
    "opset 20": (ResNetLike, NCHW, {"opset": 20}, (*NORMALIZED, "--activation", "softmax")),
    "opset 11": (ResNetLike, NCHW, {"opset": 11}, (*NORMALIZED, "--activation", "softmax")),
    "NHWC": (
        lambda: Wrapped(lambda x: x.permute(0, 3, 1, 2), same),
        NHWC,
        {},
        (*NORMALIZED, "--activation", "softmax"),
    ),
    "BGR": (
        ResNetLike,
        NCHW,
        {},
        (*NORMALIZED, "--activation", "softmax", "--channel-order", "bgr"),
    ),
    "bytes": (lambda: Wrapped(from_bytes, same), BYTES, {}, ("--activation", "softmax")),
    "one image": (
        ResNetLike,
        NCHW,
        {"batch": False},
        (*NORMALIZED, "--activation", "softmax"),
    ),
    "one image with a class token": (
        Attentive,
        NCHW,
        {"batch": False},
        (*NORMALIZED, "--activation", "softmax"),
    ),
    "softmax inside": (
        lambda: Wrapped(same, lambda y: y.softmax(1)),
        NCHW,
        {},
        NORMALIZED,
    ),
    "several labels": (ResNetLike, NCHW, {}, (*NORMALIZED, "--activation", "sigmoid")),
    "sigmoid inside": (
        lambda: Wrapped(same, lambda y: y.sigmoid()),
        NCHW,
        {},
        NORMALIZED,
    ),
    "probabilities": (
        lambda: Wrapped(same, lambda y: (z := y.exp()) / z.sum(1, keepdim=True)),
        NCHW,
        {},
        (*NORMALIZED, "--activation", "none"),
    ),
    "a map of one pixel": (
        lambda: Wrapped(same, lambda y: y[:, :, None, None]),
        NCHW,
        {},
        (*NORMALIZED, "--activation", "softmax"),
    ),
    "two outputs": (
        lambda: Wrapped(same, lambda y: (y, y.relu())),
        NCHW,
        {},
        (*NORMALIZED, "--activation", "softmax", "--output", "y"),
    ),
}


def own_answers(path: Path, images: Pixels, flags: tuple[str, ...]) -> Any:
    """What its users get of ONNX Runtime: probabilities, written without this program's code."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = session.get_inputs()[0]
    rows = []
    for image in images:
        fed: Any = image
        if wanted.type != "tensor(uint8)":
            fed = ((image / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
        if "bgr" in flags:
            fed = fed[..., ::-1]
        if wanted.shape[1] == 3:
            fed = fed.transpose(2, 0, 1)
        rows.append(session.run(["y"], {"x": np.ascontiguousarray(fed[None])})[0].reshape(-1))
    scores = np.stack(rows).astype(np.float64)
    if "softmax" in flags:
        exponentials = np.exp(scores - scores.max(1, keepdims=True))
        return exponentials / exponentials.sum(1, keepdims=True)
    return 1 / (1 + np.exp(-scores)) if "sigmoid" in flags else scores


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the older of PyTorch's exporters
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("case", GOOD)
def test_a_foreign_classifier_answers_as_its_own_graph_does(
    case: str, tmp_path: Path, export: Export
) -> None:
    make, example, how, flags = GOOD[case]
    path = save(tmp_path / "theirs.onnx", make(), example, **how)
    status, _, err = export("--onnx", str(path), "--name", "theirs", *flags)
    assert status == 0, err
    assert ("computed one after another" in err) == (case == "one image with a class token")
    folder = tmp_path / "repository" / "theirs"
    ours = onnxruntime.InferenceSession(folder / "1/model.onnx", providers=["CPUExecutionProvider"])
    images = probe_images(SIZE, 7)
    expected = own_answers(path, images, flags)
    assert np.ptp(expected, axis=0).max() > 1e-3  # images differ in their answers
    for batch in (1, 4, 7):
        logits, found = ours.run(["logits", "probabilities"], {"image": images[:batch]})
        assert logits.shape == found.shape == (batch, CLASSES)
        np.testing.assert_allclose(found, expected[:batch], rtol=0, atol=1e-5)
    config = read_config(folder / "config.pbtxt")
    about = parameters(config)
    assert about["family"] == "onnx"
    assert about["activation"] == ("sigmoid" if "label" in case or "sigmoid" in case else "softmax")
    assert list(config.input[0].dims) == [SIZE, SIZE, 3]


SERVED = {
    "nchw": "NCHW",
    "nhwc": "NHWC",
    "bytes": "bytes",
    "one_image": "one image",
    "one_by_one": "one image with a class token",
    "inside": "softmax inside",
    "labels": "several labels",
    "opset_13": "opset 13",
    "opset_20": "opset 20",
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the older of PyTorch's exporters
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.timeout(300)  # half a minute, but for a busy machine
def test_foreign_classifiers_are_served(tmp_path: Path, export: Export) -> None:
    """Through a real Triton and over HTTP, in batches, within 1e-5 of their own graphs."""
    paths = {}
    for name, case in SERVED.items():
        make, example, how, flags = GOOD[case]
        paths[name] = save(tmp_path / f"{name}.onnx", make(), example, **how)
        assert export("--onnx", str(paths[name]), "--name", name, *flags)[0] == 0
    images = probe_images(SIZE, 5)
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files.append(("image", ("a.png", file.getvalue(), "image/png")))
    with (
        running_stack(tmp_path / "repository", tmp_path / "log", "nchw") as (_, gateway),
        client_of(gateway, 60.0) as client,
    ):
        for name, case in SERVED.items():
            query = f"/classify/batch?model={name}&top_k={CLASSES}"
            answer = client.post(query, files=files)
            assert answer.status_code == 200, answer.text
            expected = own_answers(paths[name], images, GOOD[case][3])
            for result, row in zip(answer.json()["results"], expected, strict=True):
                found = {each["index"]: each["probability"] for each in result["predictions"]}
                ordered = [found[index] for index in range(CLASSES)]
                np.testing.assert_allclose(ordered, row, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the older of PyTorch's exporters
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("case", ["NCHW", "softmax inside"])
def test_reduced_precisions_of_foreign_graphs(
    case: str, precision: str, tmp_path: Path, export: Export
) -> None:
    make, example, how, flags = GOOD[case]
    path = save(tmp_path / "theirs.onnx", make(), example, **how)
    images = probe_images(SIZE, 24)
    (tmp_path / "images").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")
    reduced = ("--precision", precision, "--calibration", str(tmp_path / "images"), "--force")
    status, _, err = export("--onnx", str(path), "--name", "theirs", *flags, *reduced)
    assert status == 0, err
    folder = tmp_path / "repository" / "theirs"
    operators = {node.op_type for node in onnx.load(folder / "1/model.onnx").graph.node}
    assert ("QuantizeLinear" in operators) == (precision == "int8")
    ours = onnxruntime.InferenceSession(folder / "1/model.onnx", providers=["CPUExecutionProvider"])
    (found,) = ours.run(["probabilities"], {"image": images})
    difference = np.abs(found - own_answers(path, images, flags)).max()
    assert 0 < difference < (0.01 if precision == "fp16" else 0.15)
