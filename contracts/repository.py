"""Triton's model repository as this project lays it out: names of files and of tensors.

In: nothing. Out: constants that export uses to write and the server uses to read, and the digest
that identifies a model's graph.
"""

import hashlib
from pathlib import Path

# Tensors: `image` is UINT8 [N, H, W, 3], `logits` and `probabilities` are FP32 [N, K], and
# `embedding` is FP32 [N, D]: the input of the head. Not every model has `embedding`.
INPUT, LOGITS, PROBABILITIES, EMBEDDING = "image", "logits", "probabilities", "embedding"

# Files of a model's folder.
CONFIG_NAME, LABELS_NAME = "config.pbtxt", "labels.txt"
TENSORRT_CONFIG = Path("configs", "tensorrt.pbtxt")
ONNX_PATH, PLAN_PATH = Path("1", "model.onnx"), Path("1", "model.plan")

# The parameter of config.pbtxt that holds the digest of the graph that was exported.
GRAPH_DIGEST = "graph_sha256"
# The parameter with the digest of the weights in that graph; the graph's own metadata hold it, too.
CHECKPOINT_DIGEST = "checkpoint_sha256"
# The parameter that lets OpenVINO compute in bfloat16 what the graph has in FP32; YES or absent.
HINT_BF16 = "HINT_BF16"


def graph_digest(graph: Path) -> str:
    """SHA-256 of a `model.onnx` and of the weights beside it, `model.onnx.data`, in hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(graph.parent.glob(f"{graph.name}*")):
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
