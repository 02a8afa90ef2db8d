"""Graphs that several tests of the export look at: each is traced once per run of the tests."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.checkpoint import load_classifier
from export.classifier import Classifier
from export.commands import publish_model
from export.graph import build_graph, save_graph
from export.options import Options
from export.random_weights import random_classifier
from tests.photos import photo

GOLDEN = Path(__file__).parent / "golden"
# Every golden case: the families, and what else a graph can look like.
CASES = (
    *("mixer_tiny", "mixer_tiny_hires_k2", "bit_tiny"),
    *("vit_tiny_token", "vit_tiny_gap", "vit_tiny_token_prelogits", "vit_tiny_token_hires_48"),
)
_FOLDER = tempfile.TemporaryDirectory(prefix="exported-")


@functools.cache
def classifier(case: str) -> Classifier:
    """The classifier of a golden case, or a variant with random weights."""
    if case not in CASES:
        return random_classifier(case)
    images, _ = golden_logits(case)
    return load_classifier(GOLDEN / case / "checkpoint.npz", images.shape[1])


@functools.cache
def graph(case: str) -> Path:
    """`model.onnx` of that classifier."""
    path = Path(_FOLDER.name) / case / "model.onnx"
    path.parent.mkdir()
    save_graph(build_graph(classifier(case)), path)
    return path


def published_int8(case: str, repository: Path) -> Path:
    """The model's folder of a golden case, published in INT8, calibrated on photographs."""
    photos = repository.parent / "photos"
    photos.mkdir()
    for index in range(24):
        (photos / f"{index}.jpg").write_bytes(photo(index, 64, 64))
    options = Options(
        checkpoint=GOLDEN / case / "checkpoint.npz",
        name=case,
        image_size=classifier(case).image_size,
        precision="int8",
        calibration=photos,
        repository=repository,
        force=True,
    )
    publish_model(options)
    return repository / case


def golden_logits(case: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Images uint8 [N, H, W, 3] and the logits that the official code gives them."""
    with np.load(GOLDEN / case / "case.npz") as arrays:
        return arrays["images"], arrays["logits"]
