"""Small classifiers for the tests of the server, published as `export` publishes its models.

A linear map of the normalised image and a softmax: cheap enough that a test measures the server.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from contracts.probing import Golden, golden_of, probe_pixels

SIZE, CLASSES, MAX_BATCH_SIZE = 32, 10, 32
MODEL_FILE = Path("1/model.onnx")


def publish(
    repository: Path,
    name: str,
    *,
    seed: int = 0,
    queue_delay_us: int = 0,
    instances: int = 1,
    external_data: bool = False,
    parameters: dict[str, str] | None = None,
) -> Path:
    """Write a complete model NAME into `repository`; returns its folder."""
    folder = repository / name
    (folder / MODEL_FILE).parent.mkdir(parents=True)
    onnx.save(
        graph(seed),
        folder / MODEL_FILE,
        save_as_external_data=external_data,
        location="weights.bin" if external_data else None,
    )
    (folder / "labels.txt").write_text("".join(f"class {i}\n" for i in range(CLASSES)))
    stated = {
        "family": "mixer",
        "precision": "fp32",
        "random_weights": "true",
        "resize": "squash",
        "interpolation": "bilinear",
        "antialias": "true",
        "crop_fraction": "1.0",
    } | (parameters or {})
    (folder / "config.pbtxt").write_text(
        f'''name: "{name}"
backend: "onnxruntime"
max_batch_size: {MAX_BATCH_SIZE}
input [ {{ name: "image" data_type: TYPE_UINT8 dims: [ {SIZE}, {SIZE}, 3 ] }} ]
output [
  {{ name: "logits" data_type: TYPE_FP32 dims: [ {CLASSES} ] label_filename: "labels.txt" }},
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {CLASSES} ] label_filename: "labels.txt" }}
]
dynamic_batching {{ max_queue_delay_microseconds: {queue_delay_us} }}
instance_group [ {{ count: {instances} kind: KIND_CPU }} ]
'''
        + "".join(
            f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
            for key, value in stated.items()
        )
    )
    return folder


def golden(seed: int) -> Golden:
    """What the model of that seed answers to the image of every probe."""
    pixels = np.frombuffer(probe_pixels(SIZE, SIZE), np.uint8).reshape(1, SIZE, SIZE, 3)
    session = onnxruntime.InferenceSession(graph(seed).SerializeToString())
    return golden_of(session.run(["probabilities"], {"image": pixels})[0][0].tolist(), SIZE, SIZE)


def graph(seed: int) -> onnx.ModelProto:
    """`image` uint8[N, 32, 32, 3] → `logits`, `probabilities` float32[N, 10]."""
    weights = np.random.default_rng(seed).normal(0, 0.05, (SIZE * SIZE * 3, CLASSES))
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
                helper.make_node("Sub", ["pixels", "half"], ["centred"]),
                helper.make_node("Div", ["centred", "half"], ["scaled"]),
                helper.make_node("Flatten", ["scaled"], ["flat"], axis=1),
                helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
                helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            ],
            "linear",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIZE, SIZE, 3])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", CLASSES])
                for name in ("logits", "probabilities")
            ],
            [
                numpy_helper.from_array(weights.astype(np.float32), "weights"),
                numpy_helper.from_array(np.array(127.5, np.float32), "half"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
