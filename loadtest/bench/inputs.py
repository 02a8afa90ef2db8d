"""The inputs of the serving benchmark: models and images, made once and kept.

In: a folder. Out: a model repository in this folder and JPEGs beside it. The repository has `tiny`
(a small Mixer for 32 × 32 pixels), `empty` (a model that takes 224 × 224 pixels and does almost no
work) and real models with random weights. The JPEGs are similar to photographs, from 32 × 32 pixels
to 12 megapixels.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from contracts.model_config import ModelConfig, config_text, read_config
from contracts.repository import GRAPH_DIGEST, ONNX_PATH, graph_digest

SIDE, CLASSES, STRIDE = 224, 10, 16
# Name: width, height, quality. The files have 1, 25, 94, 270 KB and 4 MB; an image of ImageNet has
# 110 KB on average.
IMAGES = {
    "32px": (32, 32, 75),
    "224px": (224, 224, 92),
    "500px": (500, 375, 92),
    "1024px": (1024, 768, 85),
    "12mp": (4032, 3024, 85),
}


def prepare(folder: Path, real: Sequence[str]) -> None:
    """Make the missing inputs; `real` names variants of `python -m export --list`."""
    models = folder / "models"
    for name, variant in {"tiny": "mixer_testing", **{name: name for name in real}}.items():
        if not (models / name).exists():
            flags = ("--model", variant, "--name", name, "--repository", str(models))
            subprocess.run([sys.executable, "-m", "export", *flags], check=True)
    if not (models / "empty").exists():
        _publish_empty(models / "empty", read_config(models / "tiny/config.pbtxt"))
    for name, (width, height, quality) in IMAGES.items():
        if not (path := folder / f"{name}.jpg").exists():
            image(width, height).save(path, quality=quality)


def image(width: int, height: int) -> Image.Image:
    """Smooth colours, an edge and grain; a JPEG of it takes a decoder as long as a photograph."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    waves = [np.sin(a * x + b * y + c) for a, b, c in random.uniform(1, 40, (3, 3))]
    pixels = (
        127.5 + 60 * np.stack(waves, axis=-1) + 30 * (np.hypot(x - 0.5, y - 0.5) < 0.3)[..., None]
    )
    pixels += random.normal(0, 12, (height, width, 1)).astype(np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _publish_empty(folder: Path, config: ModelConfig) -> None:
    (folder / "1").mkdir(parents=True)
    onnx.save(_empty(), folder / ONNX_PATH)
    (folder / "labels.txt").write_text("".join(f"class {i}\n" for i in range(CLASSES)))
    config.name = "empty"
    config.parameters[GRAPH_DIGEST].string_value = graph_digest(folder / ONNX_PATH)
    del config.output[2:]  # the graph has logits and probabilities alone
    config.input[0].dims[:] = [SIDE, SIDE, 3]
    for sample in config.model_warmup:
        sample.inputs["image"].dims[:] = [SIDE, SIDE, 3]
    (folder / "config.pbtxt").write_text(config_text(config), encoding="utf-8")


def _empty() -> onnx.ModelProto:
    seen = SIDE // STRIDE
    weights = np.random.default_rng(0).normal(0, 1e-3, (seen * seen * 3, CLASSES))
    nodes = [
        helper.make_node("Slice", ["image", "starts", "ends", "axes", "steps"], ["some"]),
        helper.make_node("Cast", ["some"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = {
        "starts": np.array([0, 0]),
        "ends": np.array([SIDE, SIDE]),
        "axes": np.array([1, 2]),
        "steps": np.array([STRIDE, STRIDE]),
        "weights": weights.astype(np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "empty",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", CLASSES])
            for name in ("logits", "probabilities")
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
