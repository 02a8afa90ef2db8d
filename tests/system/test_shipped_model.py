"""The shipped models: the three implementations agree on them, and they are what they say."""

import hashlib
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts.images.decoding import read
from contracts.model_config import parse_config
from contracts.repository import LOGITS, PROBABILITIES
from contracts.resizing import ResizeRule
from export.checkpoint import load_classifier
from export.config import ModelSpec, onnxruntime_config, tensorrt_config
from export.graph import open_graph
from export.parity import torch_logits
from reference import models
from reference.augment import normalise
from tests.photos import photo
from tests.waiting import CHECKOUT

# With how many numbers their embeddings have.
SHIPPED = {"mixer_cifar10": 128, "vit_cifar10": 48, "bit_cifar10": 512}


@pytest.fixture(params=SHIPPED)
def model(request: pytest.FixtureRequest) -> Path:
    """The folder of each of them."""
    return CHECKOUT / "model_repository" / str(request.param)


@pytest.fixture
def trained(model: Path) -> Path:
    """The checkpoint that it came from."""
    return CHECKOUT / f"reference/trained/{model.name}.npz"


@pytest.fixture(scope="module")
def images() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Noise, and photo-like images as the gateway resizes them: uint8 [8, 32, 32, 3]."""
    rule = ResizeRule(32, 32)
    noise = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    photos = [read(photo(seed), rule) for seed in range(4)]
    return np.concatenate([noise, np.stack(photos)])


def test_jax_pytorch_and_onnx_give_the_same_logits(
    model: Path, trained: Path, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> None:
    read = models.read(trained)
    network = models.build(read.config, read.num_classes)
    in_jax = np.asarray(models.apply(network, read.params, normalise(jnp.asarray(images))))
    in_pytorch = torch_logits(load_classifier(trained, image_size=32), images)
    (in_onnx,) = open_graph(model / "1/model.onnx").run([LOGITS], {"image": images})
    assert in_jax.std() > 0.1
    np.testing.assert_allclose(in_pytorch, in_jax, rtol=0, atol=2e-5)
    np.testing.assert_allclose(in_onnx, in_jax, rtol=0, atol=2e-5)


def config(path: Path) -> model_config_pb2.ModelConfig:
    """One of a model's configurations, by protobuf itself."""
    text = path.read_text()
    parsed: model_config_pb2.ModelConfig = text_format.Parse(text, model_config_pb2.ModelConfig())
    return parsed


def test_the_folder_names_the_checkpoint_that_it_came_from(model: Path, trained: Path) -> None:
    parameters = config(model / "config.pbtxt").parameters
    digest = hashlib.sha256(trained.read_bytes()).hexdigest()
    assert parameters["checkpoint_sha256"].string_value == digest
    assert parameters["random_weights"].string_value == "false"
    made_by = json.loads(trained.with_suffix(".json").read_text())
    assert parameters["variant"].string_value == made_by["variant"]


def test_its_configurations_are_what_export_writes(model: Path) -> None:
    shipped = config(model / "config.pbtxt")
    stated = {key: value.string_value for key, value in shipped.parameters.items()}
    about = {key: value for key, value in stated.items() if not key.endswith("_thread_count")}
    size = SHIPPED[model.name]
    spec = ModelSpec(model.name, 32, 10, 32, about, embedding_size=size)
    for name, write in {
        "config.pbtxt": onnxruntime_config,
        "configs/tensorrt.pbtxt": tensorrt_config,
    }.items():
        assert parse_config(write(spec)) == config(model / name)


def test_its_probabilities_are_calibrated_and_its_provenance_says_by_how_much(
    model: Path, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> None:
    parameters = config(model / "config.pbtxt").parameters
    about = {key: value.string_value for key, value in parameters.items()}
    assert float(about["ece_after"]) < 0.05
    assert float(about["ece_after"]) <= float(about["ece_before"])
    assert int(about["calibration_images"]) == 2500
    # Only where it tells.
    assert ("unsure_below_logit" in about) == (float(about["unsure_auroc"]) >= 0.85)
    session = open_graph(model / "1/model.onnx")
    logits, found = session.run([LOGITS, PROBABILITIES], {"image": images})
    powers = np.exp(logits.astype(float) / float(about["temperature"]))
    np.testing.assert_allclose(found, powers / powers.sum(1, keepdims=True), rtol=0, atol=1e-5)


def test_its_labels_are_the_classes_it_was_trained_on(model: Path, trained: Path) -> None:
    labels = (model / "labels.txt").read_text()
    assert labels == trained.with_suffix(".labels.txt").read_text()
    assert labels.split() == [
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ]


def test_it_is_small_enough_to_be_cloned_without_thinking(model: Path, trained: Path) -> None:
    files = [path for path in (*model.rglob("*"), *trained.parent.iterdir()) if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12 * 10**6
