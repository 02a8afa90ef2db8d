"""Whether windows that were measured one after the other agree, and whether they drift.

In: values of windows, in their order. Out: whether the last ones agree, by the rule of NVIDIA's
perf_analyzer (largest ÷ smallest of the last three within 10 %), and the drift over all of them.
"""

import math
from collections.abc import Sequence

import numpy as np

from loadtest.stats.intervals import Estimate
from loadtest.stats.ratios import t_quantile

AGREE = 0.1
AGREEING = 3  # the number of last windows that must agree
LEAST_FOR_DRIFT = 4


def agree(values: Sequence[float]) -> bool:
    """Whether the last windows agree; false with fewer than AGREEING windows."""
    last = values[-AGREEING:]
    if len(last) < AGREEING or not (min(last) > 0 and math.isfinite(max(last))):
        return False
    return max(last) <= (1 + AGREE) * min(last)


def drift(values: Sequence[float]) -> Estimate | None:
    """By which factor the values changed from the first to the last window.

    The factor comes from a line through the logarithms; None with too few windows.
    """
    count = len(values)
    if count < LEAST_FOR_DRIFT or min(values) <= 0:
        return None
    at = np.arange(count) / (count - 1)
    heights = np.log(values)
    slope, base = np.polyfit(at, heights, 1)
    rest = heights - (base + slope * at)
    error = math.sqrt(float(rest @ rest) / (count - 2) / float(((at - at.mean()) ** 2).sum()))
    half = t_quantile(count - 2) * error
    return Estimate(*(math.exp(each) for each in (slope, slope - half, slope + half)))
