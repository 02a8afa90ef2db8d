"""A claim about the graph, held against the shipped Mixer."""

import dataclasses
from collections import Counter

import numpy as np
import onnx
import pytest

from loadtest.report import claims, studies
from loadtest.report.studies import Trained
from tests.waiting import CHECKOUT

# Matrix products, scalar non-linearities, what moves numbers, and the mean over tokens.
NEEDED = {
    *("Add", "Cast", "Div", "Gelu", "LayerNormalization", "MatMul", "ReduceMean", "Reshape"),
    *("Sub", "Transpose"),
}


def test_a_mixer_needs_neither_convolution_nor_attention() -> None:
    path = CHECKOUT / "model_repository/mixer_cifar10/1/model.onnx"
    graph = onnx.load(path, load_external_data=False).graph
    counted = Counter(node.op_type for node in graph.node)
    assert counted["Conv"] <= 1  # the patch embedding may be one
    assert counted["Softmax"] == 1  # of the classes
    assert set(counted) - {"Conv", "Softmax"} <= NEEDED


def test_every_claim_has_a_check() -> None:
    assert len({claim for claim, _ in claims.CLAIMS}) == len(claims.CLAIMS) == 11


def trained(family: str, share: float, accuracy: float, seeds: int) -> Trained:
    """Of 1,000 test images the first ones are right."""
    right = (np.arange(1000) < 1000 * accuracy).astype(float)
    return Trained(family, share, int(48_000 * share), 500, 1.3 / share, seeds, right, 0.9, 60.0)


@pytest.mark.parametrize(
    ("accuracy", "seeds", "expected"),
    [
        (0.8, 2, "yes, at this scale"),
        (0.5, 2, "not at this budget"),
        (0.8, 1, "not shown here"),
    ],
)
def test_what_more_data_brings_is_told_from_two_seeds(
    accuracy: float, seeds: int, expected: str
) -> None:
    points = [trained("mixer", 0.1, 0.5, 2), trained("mixer", 1.0, accuracy, seeds)]
    evidence = claims.Evidence([], [], points, [])
    checks = dict(claims.CLAIMS)
    finding, text = checks["More training data helps Mixer markedly"](evidence)
    assert finding == expected
    assert "1.3 epochs of all" in text


def test_a_longer_training_speaks_for_the_families_and_not_for_what_data_brings() -> None:
    short = [trained(family, share, 0.5, 2) for family in studies.NAMES for share in (0.1, 1.0)]
    longer = [
        dataclasses.replace(trained(family, 1.0, 0.75, 1), steps=4500, epochs=12.0)
        for family in studies.NAMES
    ]
    checks = dict(claims.CLAIMS)
    evidence = claims.Evidence([], [], short + longer, [])
    _, text = checks["More training data helps Mixer markedly"](evidence)
    assert "gains +0.0 points" in text
    claim = "Convolutions and attention suffice for good results, and neither is needed"
    finding, text = checks[claim](evidence)
    assert finding == "yes, at this scale"
    assert text.endswith("12 epochs, 1 seed: Mixer 75.0%, ViT 75.0%, BiT 75.0%")
