"""A classifier's scores, computed from its probabilities.

In: probabilities [N, K] and labels [N]. Out: accuracy with an interval, calibration, confusion.
"""

import dataclasses
import math

import numpy as np
import numpy.typing as npt

BINS = 15  # bins of equal width, as in Guo et al. 2017 (arXiv 1706.04599)
Z = 1.959964  # the quantile for 95 % of a normal distribution


@dataclasses.dataclass(frozen=True)
class Scores:
    """Shares, 0 to 1, and the confusion [K, K]: images of class `row` classified as `column`."""

    images: int
    top1: float
    top1_interval: tuple[float, float]
    top5: float
    calibration_error: float
    log_loss: float  # mean, in nats
    confusion: npt.NDArray[np.int64]


def scores(probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.integer]) -> Scores:
    """All scores, from float32 [N, K] and int [N]."""
    count, classes = probabilities.shape
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    hits = order == labels[:, None]
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, order[:, 0]), 1)
    right = int(hits[:, 0].sum())
    wanted = probabilities[np.arange(count), labels].astype(np.float64)
    return Scores(
        count,
        right / count,
        wilson(right, count),
        float(hits.any(axis=1).mean()),
        _calibration_error(probabilities.max(axis=1), hits[:, 0]),
        float(-np.log(np.maximum(wanted, np.finfo(np.float32).tiny)).mean()),
        confusion,
    )


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` independent answers (Wilson 1927)."""
    share, spread = right / count, Z * Z / count
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return middle - half, middle + half


def _calibration_error(confidence: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> float:
    """The mean of |confidence - accuracy| over bins of confidence, weighted by the bins' sizes."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    sums = np.bincount(bins, right.astype(np.float64) - confidence, BINS)
    return float(np.abs(sums).sum() / len(confidence))
