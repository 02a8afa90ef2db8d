"""The golden cases: logits that the official code computed, met by the PyTorch modules."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export.checkpoint import load_classifier

GOLDEN = Path(__file__).parents[1] / "golden"
CHECKPOINTS = sorted(GOLDEN.glob("*/checkpoint*.npz"))
TOLERANCE = {"mixer": 2e-5, "vit": 2e-5, "bit": 5e-5}


def test_every_case_is_there_and_unchanged() -> None:
    assert len(CHECKPOINTS) == 10
    for line in (GOLDEN / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split(maxsplit=1)
        assert hashlib.sha256((GOLDEN / name.lstrip("*")).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_logits_are_those_of_the_official_code(path: Path) -> None:
    case = np.load(path.with_name("case.npz"))
    config = json.loads(path.with_name("config.json").read_text())
    images = case["images"].astype(np.float32)
    normalised = (images - 127.5) / 127.5
    np.testing.assert_allclose(normalised, case["input"], atol=1e-7)
    classifier = load_classifier(path, image_size=images.shape[1])
    assert classifier.family == config["family"]
    assert classifier.num_classes == config["num_classes"]
    assert not classifier.random_weights
    with torch.no_grad():
        logits = classifier.module(torch.from_numpy(normalised)).numpy()
    assert logits.dtype == np.float32
    assert np.abs(logits - case["logits"]).max() <= TOLERANCE[classifier.family]
    if "logits_bit_pytorch_float64" in case:
        assert np.abs(logits - case["logits_bit_pytorch_float64"]).max() <= 2e-5


def test_image_size_is_that_of_the_weights_unless_told() -> None:
    for name in ("mixer_tiny", "vit_tiny_token", "vit_tiny_gap"):
        assert load_classifier(GOLDEN / name / "checkpoint.npz").image_size == 32
    assert load_classifier(GOLDEN / "bit_tiny" / "checkpoint.npz").image_size == 224


def test_parameters_that_logits_do_not_show_are_the_files() -> None:
    path = GOLDEN / "vit_tiny_token" / "checkpoint.npz"
    block = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/bias"
    loaded = load_classifier(path).module.get_parameter(block.replace("/", "."))
    np.testing.assert_array_equal(loaded.numpy(), np.load(path)[block].reshape(-1))
    path = GOLDEN / "mixer_tiny" / "checkpoint.npz"
    block = "MixerBlock_2/token_mixing/Dense_1/bias"
    loaded = load_classifier(path).module.get_parameter(block.replace("/", "."))
    np.testing.assert_array_equal(loaded.numpy()[:, 0], np.load(path)[block])


def test_positions_are_resized_as_scipy_does() -> None:
    folder = GOLDEN / "vit_tiny_token_hires_48"
    module = load_classifier(folder / "checkpoint.npz", image_size=48).module
    resized = module.get_parameter("Transformer.posembed_input.pos_embedding").numpy()
    expected = np.load(folder / "case.npz")["pos_embedding_resized"]
    np.testing.assert_allclose(resized, expected, atol=1e-6)
