"""The greatest rate at which the 99th percentile of a model's latency keeps a limit.

In: a function that measures a window at a rate, the model's capacity, the limit. Out: every trial,
and the greatest rate whose p99 is within the limit with 99 % confidence. The search is a bisection;
a trial ends as soon as more requests are late than is allowed.
"""

import dataclasses
import math
from collections.abc import Awaitable, Callable

from loadtest.compare.measure import Visit
from loadtest.stats.percentiles import keeps, least_samples, slower_allowed

FINE = 1.05  # a search ends when the upper bound ÷ the lower bound is no larger
SLOWER = 1  # requests that may be late; a trial then needs 662 requests
LEVEL = 99.0


@dataclasses.dataclass(frozen=True)
class Trial:
    """One rate that was tried."""

    rate: float  # images per second that were sent
    requests: int
    late: int  # answered beyond the limit, or not at all
    goodput: float  # images per second that were answered within the limit
    kept: bool
    disturbed: str


def trial(rate: float, visit: Visit, limit_ms: float) -> Trial:
    """The trial that a window at a rate amounts to."""
    late = sum(value > limit_ms for value in visit.milliseconds)
    requests = len(visit.latencies_ms)
    return Trial(
        rate=round(rate, 4),
        requests=requests,
        late=late,
        goodput=round((requests - late) / visit.seconds, 4) if visit.seconds else 0.0,
        kept=keeps(visit.milliseconds, limit_ms, LEVEL),
        disturbed=visit.disturbed,
    )


def seconds_for(rate: float) -> float:
    """How long a window must be to have enough requests, even when few arrive by chance."""
    least = least_samples(LEVEL, SLOWER)
    return (least + 3 * math.sqrt(least)) / rate


def late_allowed(requests: int) -> int:
    """How many of `requests` requests may be late; -1 if there are too few requests to judge."""
    return slower_allowed(requests, LEVEL)


async def search(
    attempt: Callable[[float], Awaitable[Trial]], capacity: float, most: int
) -> tuple[list[Trial], float]:
    """Search; returns the trials, and the greatest rate that kept the limit, 0 if none did.

    `attempt` measures one rate. The search begins at 0.7 of `capacity`, the model's rate in the
    closed loop, and ends after `most` trials.
    """
    trials: list[Trial] = []
    low, high, rate = 0.0, capacity, 0.7 * capacity
    while len(trials) < most and (low == 0 or high / low > FINE):
        found = await attempt(rate)
        trials.append(found)
        if found.disturbed:
            continue
        if found.kept:
            low = rate
        else:
            high = rate
        rate = math.sqrt(low * high) if low else high / 2
        if rate < capacity / 100:
            break
    return trials, low
