"""Scores and the few-shot probe, beside SciPy's, and beside the same systems solved another way."""

import numpy as np
import pytest
from scipy import stats

from reference import fewshot
from reference.config import ConfigError
from reference.scores import scores, wilson

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("right", "count"), [(0, 10), (7, 10), (10, 10), (4213, 5000)])
def test_the_interval_is_wilson_s(right: int, count: int) -> None:
    expected = stats.binomtest(right, count).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(wilson(right, count), expected, atol=1e-6)


def test_scores_by_hand() -> None:
    probabilities = np.array(
        [[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.25, 0.35, 0.4], [0.0, 0.35, 0.65]], np.float32
    )
    found = scores(probabilities, np.array([0, 1, 2, 1]))
    assert (found.images, found.top1, found.top5) == (4, 0.5, 1.0)
    assert found.confusion.tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 1]]
    # Each is in a bin of its own: |1 − 0.9| + |0 − 0.8| + |1 − 0.4| + |0 − 0.65|, over four.
    assert found.calibration_error == pytest.approx((0.1 + 0.8 + 0.6 + 0.65) / 4)
    assert found.log_loss == pytest.approx(-np.log([0.9, 0.2, 0.4, 0.35]).mean(), rel=1e-6)


def test_a_calibrated_classifier_has_no_calibration_error() -> None:
    sure = RANDOM.uniform(0.5, 1, 200_000)
    labels = (RANDOM.random(200_000) > sure).astype(int)
    found = scores(np.stack([sure, 1 - sure], axis=1).astype(np.float32), labels)
    assert found.calibration_error < 0.005


@pytest.mark.parametrize(("count", "width"), [(8, 50), (50, 8)], ids=["by rows", "by columns"])
def test_the_probe_is_ridge_regression_with_the_published_constants(count: int, width: int) -> None:
    shots, test = RANDOM.normal(size=(count, width)), RANDOM.normal(size=(30, width))
    labels = np.arange(count) % 4
    # As a least-squares problem: √1024 times each weight should be zero.
    mean, deviation = shots.mean(axis=0), shots.std(axis=0) + 1e-5
    x = np.c_[(shots - mean) / deviation, np.full(count, 100.0)]
    rows = np.r_[x, np.sqrt(1024) * np.eye(width + 1)]
    targets = np.r_[2.0 * np.eye(4)[labels] - 1, np.zeros((width + 1, 4))]
    weights, *_ = np.linalg.lstsq(rows, targets, rcond=None)
    expected = (np.c_[(test - mean) / deviation, np.full(30, 100.0)] @ weights).argmax(axis=1)
    np.testing.assert_array_equal(fewshot.classify(shots, labels, test, 4), expected)


def test_a_probe_finds_classes_that_lie_apart_and_names_a_class_that_is_too_small() -> None:
    centres = 10 * RANDOM.normal(size=(3, 6))
    labels = np.repeat(np.arange(3), 20)
    features = centres[labels] + RANDOM.normal(size=(60, 6))
    rows = fewshot.candidates(labels, 5)
    found = fewshot.probe((features[rows], labels[rows]), (features, labels), (1, 5))
    assert [probe.shots for probe in found] == [1, 5]
    assert found[1].mean == 1.0
    assert len(found[0].accuracies) == 3
    with pytest.raises(ConfigError, match="shots: class 0 has 20 images for 21 shots"):
        fewshot.probe((features, labels), (features, labels), (21,))
