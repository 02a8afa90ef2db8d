"""Export: a trained checkpoint becomes an ONNX model in Triton's repository.

In: `.npz` as Google publishes it, or timm's `.safetensors`. Out: a folder of `model_repository/`.
"""

import os

# onnxruntime uploads usage data by default, and reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
