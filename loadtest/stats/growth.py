"""Exponents of the growth of a time, with intervals.

In: rows of a sweep: tokens, times (medians over windows), and the windows. Out: exponents of the
time by the clock, of the CPU time, and of the arithmetic.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from loadtest.stats.ratios import t_quantile

LEAST_SIZES = 4
LEAST_ROUNDS = 3


def fits(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Exponents of a model by the clock, by CPU time, and of its arithmetic."""
    found = {}
    for kind in ("compute_ms", "cpu_ms", "flops"):
        points = [(row["tokens"], row[kind]) for row in rows if row[kind]]
        if len(points) >= LEAST_SIZES:
            found[kind] = fit(points)
            if kind != "flops":
                found[kind] |= _interval(rows, kind)
    return found


def _interval(rows: Sequence[dict[str, Any]], kind: str) -> dict[str, float]:
    """The exponent's 95 % interval, from the exponents of the rounds that have every size."""
    rounds: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        for window in row["windows"]:
            if not window["disturbed"] and window[kind]:
                rounds.setdefault(window["round"], []).append((row["tokens"], window[kind]))
    whole = [fit(points)["exponent"] for points in rounds.values() if len(points) == len(rows)]
    if len(whole) < LEAST_ROUNDS:
        return {}
    half = t_quantile(len(whole) - 1) * statistics.stdev(whole) / math.sqrt(len(whole))
    mean = statistics.fmean(whole)
    return {"low": round(mean - half, 4), "high": round(mean + half, 4)}


def fit(points: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Fit the growth of a time with S: t = scale · S^exponent, by least squares of the logarithms.

    `upper_exponent` is the exponent of the upper half of the sizes. `quadratic_share` is c·S² ÷ t
    at the largest S, where t = a + b·S + c·S² is fitted by least squares relative to t, with no
    term below zero.
    """
    tokens, times = np.array(sorted(points), np.float64).T
    exponent, scale = np.polyfit(np.log(tokens), np.log(times), 1)
    half = len(tokens) // 2
    upper, _ = np.polyfit(np.log(tokens[half:]), np.log(times[half:]), 1)
    best = np.zeros(3)
    least = math.inf
    # Fit every subset of the three terms; the best fit without a negative term is the constrained
    # optimum.
    for mask in range(1, 8):
        chosen = [power for power in range(3) if mask >> power & 1]
        terms = np.stack([tokens**power / times for power in chosen], axis=1)
        found, *_ = np.linalg.lstsq(terms, np.ones_like(times), rcond=None)
        miss = float(((terms @ found - 1) ** 2).sum())
        if (found >= 0).all() and miss < least:
            least, best = miss, np.zeros(3)
            best[chosen] = found
    largest = tokens[-1] ** np.arange(3)
    return {
        "exponent": round(float(exponent), 4),
        "scale": float(np.exp(scale)),
        "upper_exponent": round(float(upper), 4),
        "quadratic_share": round(float(best[2] * largest[2] / (best @ largest)), 4),
    }
