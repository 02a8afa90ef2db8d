"""Triton's model repository as this project lays it out: names of files and of tensors.

In: nothing. Out: constants that export writes by and the server reads by.
"""

from pathlib import Path

# Tensors: `image` is UINT8 [N, H, W, 3], `logits` and `probabilities` are FP32 [N, K].
INPUT, LOGITS, PROBABILITIES = "image", "logits", "probabilities"

# Files of a model's folder.
CONFIG_NAME, LABELS_NAME = "config.pbtxt", "labels.txt"
TENSORRT_CONFIG = Path("configs", "tensorrt.pbtxt")
ONNX_PATH, PLAN_PATH = Path("1", "model.onnx"), Path("1", "model.plan")
