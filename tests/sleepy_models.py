"""Models whose speed no machine changes: they sleep for a fixed time per image, in a real Triton.

What measures speed can be held against them. Their answer depends on the image alone.
"""

from pathlib import Path

SIZE, CLASSES = 32, 10
CODE = """
import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.seconds = float(parameters["seconds_per_image"]["string_value"])
        self.busy = parameters["busy"]["string_value"] == "true"

    def execute(self, requests):
        batches = [pb_utils.get_input_tensor_by_name(r, "image").as_numpy() for r in requests]
        seconds = self.seconds * sum(len(batch) for batch in batches)
        end = time.monotonic() + seconds
        while self.busy and time.monotonic() < end:
            pass
        time.sleep(max(0.0, end - time.monotonic()))
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("probabilities", answer(batch))])
            for batch in batches
        ]


def answer(batch):
    means = batch.reshape(len(batch), -1)[:, :3070].reshape(len(batch), 10, -1).mean(axis=2) / 16
    exponentials = np.exp(means - means.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
"""


def publish(repository: Path, name: str, seconds_per_image: float, *, busy: bool = False) -> None:
    """Write a model NAME that answers 1 / `seconds_per_image` images per second.

    `busy`: it computes for as long, instead of sleeping.
    """
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "1/model.py").write_text(CODE)
    (folder / "labels.txt").write_text("".join(f"class {i}\n" for i in range(CLASSES)))
    stated = {
        "seconds_per_image": str(seconds_per_image), "busy": str(busy).lower(),
        "precision": "fp32", "random_weights": "true", "resize": "squash",
        "interpolation": "bilinear", "antialias": "true", "crop_fraction": "1.0",
    }  # fmt: skip
    (folder / "config.pbtxt").write_text(
        f'''name: "{name}"
backend: "python"
max_batch_size: 8
input [ {{ name: "image" data_type: TYPE_UINT8 dims: [ {SIZE}, {SIZE}, 3 ] }} ]
output [ {{
  name: "probabilities" data_type: TYPE_FP32 dims: [ {CLASSES} ] label_filename: "labels.txt"
}} ]
dynamic_batching {{ }}
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
'''
        + "".join(
            f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
            for key, value in stated.items()
        )
    )
