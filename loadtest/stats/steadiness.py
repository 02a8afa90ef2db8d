"""Whether windows that were measured one after the other agree, and whether they drift.

In: values of windows, in their order. Out: whether the last ones agree, by the rule of NVIDIA's
perf_analyzer (largest ÷ smallest of the last three within 10 %), and the drift over all of them.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from loadtest.stats.ratios import t_quantile

AGREE = 0.1
AGREEING = 3  # so many windows
LEAST_FOR_DRIFT = 4


@dataclasses.dataclass(frozen=True)
class Drift:
    """By which factor the values changed from the first to the last window, with its interval."""

    factor: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out no drift at all."""
        return not self.low <= 1 <= self.high


def agree(values: Sequence[float]) -> bool:
    """Whether the last windows agree; fewer than AGREEING say nothing."""
    last = values[-AGREEING:]
    if len(last) < AGREEING or not (min(last) > 0 and math.isfinite(max(last))):
        return False
    return max(last) <= (1 + AGREE) * min(last)


def drift(values: Sequence[float]) -> Drift | None:
    """The drift, by a line through the logarithms; None of too few windows."""
    count = len(values)
    if count < LEAST_FOR_DRIFT or min(values) <= 0:
        return None
    at = np.arange(count) / (count - 1)
    heights = np.log(values)
    slope, base = np.polyfit(at, heights, 1)
    rest = heights - (base + slope * at)
    error = math.sqrt(float(rest @ rest) / (count - 2) / float(((at - at.mean()) ** 2).sum()))
    half = t_quantile(count - 2) * error
    return Drift(*(math.exp(each) for each in (slope, slope - half, slope + half)))
