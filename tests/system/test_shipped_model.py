"""The shipped model: the three implementations agree on it, and it is what its folder says."""

import hashlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from contracts.images.decoding import read
from contracts.repository import LOGITS
from contracts.resizing import ResizeRule
from export.checkpoint import load_classifier
from export.graph import open_graph
from export.parity import torch_logits
from reference import models
from reference.augment import normalise
from tests.photos import photo
from tests.waiting import CHECKOUT

TRAINED = CHECKOUT / "reference/trained/mixer_cifar10.npz"
MODEL = CHECKOUT / "model_repository/mixer_cifar10"


@pytest.fixture(scope="module")
def images() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Noise, and photo-like images as the gateway resizes them: uint8 [8, 32, 32, 3]."""
    rule = ResizeRule(32, 32)
    noise = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    photos = [read(photo(seed), rule) for seed in range(4)]
    return np.concatenate([noise, np.stack(photos)])


def test_jax_pytorch_and_onnx_give_the_same_logits(
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> None:
    trained = models.read(TRAINED)
    model = models.build(trained.config, trained.num_classes)
    in_jax = np.asarray(models.apply(model, trained.params, normalise(jnp.asarray(images))))
    in_pytorch = torch_logits(load_classifier(TRAINED), images)
    (in_onnx,) = open_graph(MODEL / "1/model.onnx").run([LOGITS], {"image": images})
    assert in_jax.std() > 0.1
    np.testing.assert_allclose(in_pytorch, in_jax, rtol=0, atol=2e-5)
    np.testing.assert_allclose(in_onnx, in_jax, rtol=0, atol=2e-5)


def test_the_folder_names_the_checkpoint_that_it_came_from() -> None:
    config = (MODEL / "config.pbtxt").read_text()
    digest = hashlib.sha256(TRAINED.read_bytes()).hexdigest()
    assert re.search(rf'"checkpoint_sha256" value {{ string_value: "{digest}" }}', config)
    assert '"random_weights" value { string_value: "false" }' in config


def test_its_labels_are_the_classes_it_was_trained_on() -> None:
    labels = (MODEL / "labels.txt").read_text()
    assert labels == TRAINED.with_suffix(".labels.txt").read_text()
    assert labels.split() == [
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ]


def test_it_is_small_enough_to_be_cloned_without_thinking() -> None:
    files = [path for path in (*MODEL.rglob("*"), *TRAINED.parent.iterdir()) if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12 * 10**6
