"""Export: a trained checkpoint becomes an ONNX model in Triton's repository.

In: `.npz` as Google publishes it, `.safetensors` of timm or transformers, any ONNX classifier, or
the name of published weights. Out: a folder of `model_repository/`.
"""

import os
import sys

# onnxruntime and huggingface_hub send usage data by default. They read these variables when they
# are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
if not sys.stderr.isatty():
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
