"""Triton's model repository as this project lays it out: names of files and of tensors.

In: nothing. Out: constants that export writes by and the server reads by, and the digest by which a
model's graph is known again.
"""

import hashlib
from pathlib import Path

# Tensors: `image` is UINT8 [N, H, W, 3], `logits` and `probabilities` are FP32 [N, K], and
# `embedding` is FP32 [N, D]: what the head reads. Not every model has the last.
INPUT, LOGITS, PROBABILITIES, EMBEDDING = "image", "logits", "probabilities", "embedding"

# Files of a model's folder.
CONFIG_NAME, LABELS_NAME = "config.pbtxt", "labels.txt"
TENSORRT_CONFIG = Path("configs", "tensorrt.pbtxt")
ONNX_PATH, PLAN_PATH = Path("1", "model.onnx"), Path("1", "model.plan")

# The parameter of config.pbtxt that holds the digest of the graph that was exported.
GRAPH_DIGEST = "graph_sha256"
# That of the weights it was made of; the graph's own metadata hold it as well.
CHECKPOINT_DIGEST = "checkpoint_sha256"


def graph_digest(graph: Path) -> str:
    """SHA-256 of a `model.onnx` and of the weights beside it, `model.onnx.data`, in hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(graph.parent.glob(f"{graph.name}*")):
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
