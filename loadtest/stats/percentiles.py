"""Percentiles of latencies, and the least number of samples that each percentile needs.

In: latencies, infinite for requests that failed. Out: percentiles with intervals, or none where
there are too few samples. The least numbers are those of MLPerf's "early stopping": with a
confidence of 99 %, the share of slower requests is no larger than the percentile says.
https://github.com/mlcommons/inference/blob/master/loadgen/early_stopping.cc
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

from scipy import special

CONFIDENCE = 0.99
INTERVAL = 0.95
LEVELS = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclasses.dataclass(frozen=True)
class Percentile:
    """One percentile of some samples, in their unit; `high` is infinite where none is known."""

    level: float
    value: float
    low: float
    high: float

    def text(self, form: str = ".1f") -> str:
        """The value as text, or the statement that a failed request has this rank."""
        return "failed" if math.isinf(self.value) else format(self.value, form)


def slower_allowed(count: int, level: float) -> int:
    """How many of `count` requests may be slower than a limit so that the percentile keeps it.

    -1 if `count` is too small to prove this, even when no request is slower.
    """
    slower = 1 - level / 100
    allowed = -1
    while special.bdtr(allowed + 1, count, slower) < 1 - CONFIDENCE:
        allowed += 1
    return allowed


@functools.cache
def least_samples(level: float, slower: int = 1) -> int:
    """The smallest count at which `slower` requests may be slower; for naming a value it is 1.

    662 for the 99th percentile, 64 for the 90th.
    """
    low, high = slower, slower + 1
    while slower_allowed(high, level) < slower:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if slower_allowed(middle, level) >= slower else (middle, high)
    return high


def percentile(samples: Sequence[float], level: float) -> Percentile | None:
    """The percentile by nearest rank, with its 95 % interval by ranks; None if too few samples."""
    count = len(samples)
    if count < least_samples(level):
        return None
    ordered = sorted(samples)
    share = level / 100
    tail = (1 - INTERVAL) / 2
    first = max(1, math.ceil(special.bdtrik(tail, count, share)))
    last = math.ceil(special.bdtrik(1 - tail, count, share)) + 1
    return Percentile(
        level,
        ordered[math.ceil(share * count) - 1],
        ordered[first - 1],
        ordered[last - 1] if last <= count else math.inf,
    )


def percentiles(samples: Sequence[float]) -> dict[float, Percentile]:
    """The percentiles of LEVELS for which there are enough samples."""
    found = (percentile(samples, level) for level in LEVELS)
    return {each.level: each for each in found if each is not None}


def bound(samples: Sequence[float], level: float) -> float | None:
    """MLPerf's upper bound of the percentile with 99 % confidence; None with too few samples."""
    allowed = slower_allowed(len(samples), level)
    return sorted(samples, reverse=True)[allowed - 1] if allowed >= 1 else None


def keeps(samples: Sequence[float], limit: float, level: float = 99.0) -> bool:
    """Whether the percentile is within `limit`, with 99 % confidence."""
    slower = sum(value > limit for value in samples)
    return slower <= slower_allowed(len(samples), level)
