"""The greatest rate at which a model keeps a limit of its 99th percentile.

In: a way to measure a window at a rate, what the model can do, the limit. Out: every trial, and the
greatest rate whose p99 is within the limit with 99 % confidence. Rates are halved in between, as in
a search by bisection; a trial ends as soon as more requests were late than may be.
"""

import dataclasses
import math
from collections.abc import Awaitable, Callable

from loadtest.compare.measure import Visit
from loadtest.stats.percentiles import keeps, least_samples, slower_allowed

FINE = 1.05  # a search ends when the two bounds are so near to each other
SLOWER = 1  # requests that may be late; 662 are needed then
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
    """What a window says about a rate."""
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
    """How long a window must be so that it has requests enough, even by a bad chance."""
    least = least_samples(LEVEL, SLOWER)
    return (least + 3 * math.sqrt(least)) / rate


def late_allowed(requests: int) -> int:
    """How many of so many requests may be late; -1 of too few."""
    return slower_allowed(requests, LEVEL)


async def search(
    attempt: Callable[[float], Awaitable[Trial]], capacity: float, most: int
) -> tuple[list[Trial], float]:
    """Trials, and the greatest rate that kept the limit; 0 if none did.

    `attempt` measures a rate. The search begins at 0.7 of `capacity`, which is what the model
    answers when requests are always under way, and ends after `most` trials.
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
