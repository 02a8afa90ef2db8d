"""A model that answers with its own input: an instrument that shows which pixels it was given.

In: a model repository. Out: `publish`, which writes the model, and `pixels`, which makes its input
out of an answer of the gateway. Each pixel is a class whose probability is the pixel's share of the
most that all of them could be; one more class takes the rest, so that they add up to 1.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from contracts.resizing import Pixels, ResizeRule

CHANNELS = 3


def publish(repository: Path, name: str, rule: ResizeRule) -> Path:
    """Write the model into `repository`, with this resize rule; its folder."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    count = rule.height * rule.width * CHANNELS
    onnx.save(_graph(rule.height, rule.width), folder / "1/model.onnx")
    (folder / "labels.txt").write_text("".join(f"{index}\n" for index in range(count + 1)))
    outputs = ", ".join(
        f'{{ name: "{output}" data_type: TYPE_FP32 dims: [ {count + 1} ] '
        'label_filename: "labels.txt" }'
        for output in ("logits", "probabilities")
    )
    stated = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in rule.parameters().items()
    )
    shape = f"[ {rule.height}, {rule.width}, {CHANNELS} ]"
    (folder / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 8\n'
        f'input [ {{ name: "image" data_type: TYPE_UINT8 dims: {shape} }} ]\n'
        f"output [ {outputs} ]\ninstance_group [ {{ count: 1 kind: KIND_CPU }} ]\n"
        f"dynamic_batching {{ }}\n{stated}"
    )
    return folder


def pixels(answer: dict[str, Any], rule: ResizeRule) -> Pixels:
    """uint8[H, W, 3]: the model's input, of an answer with the probabilities of all classes."""
    count = rule.height * rule.width * CHANNELS
    shares = np.zeros(count + 1)
    for prediction in answer["predictions"]:
        shares[prediction["index"]] = prediction["probability"]
    found: Pixels = np.rint(shares[:count] * 255 * count).astype(np.uint8)
    return found.reshape(rule.height, rule.width, CHANNELS)


def _graph(height: int, width: int) -> onnx.ModelProto:
    count = height * width * CHANNELS
    constants = {"most": np.float32(255 * count), "one": np.float32(1)}
    nodes = (
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["levels"], ["flat"], axis=1),
        helper.make_node("Div", ["flat", "most"], ["shares"]),
        helper.make_node("ReduceSum", ["shares", "axes"], ["taken"], keepdims=1),
        helper.make_node("Sub", ["one", "taken"], ["rest"]),
        helper.make_node("Concat", ["shares", "rest"], ["probabilities"], axis=1),
        helper.make_node("Identity", ["probabilities"], ["logits"]),
    )
    shape: list[str | int | None] = ["N", height, width, CHANNELS]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "identity",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", count + 1])
                for name in ("logits", "probabilities")
            ],
            [
                *(numpy_helper.from_array(np.array(v), name) for name, v in constants.items()),
                numpy_helper.from_array(np.array([1], np.int64), "axes"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
