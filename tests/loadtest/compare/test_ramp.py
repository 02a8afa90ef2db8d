"""The search for the greatest rate within a limit, on servers whose answer is known."""

import asyncio
import math

import numpy as np
import pytest

from loadtest.compare.ramp import FINE, Trial, late_allowed, search, seconds_for
from loadtest.stats.percentiles import keeps


def queue(rate: float, service: float, requests: int, seed: int) -> list[float]:
    """Milliseconds in an M/D/1 queue, by Lindley's recursion."""
    random = np.random.default_rng(seed)
    gaps = random.exponential(1 / rate, requests)
    wait, found = 0.0, []
    for gap in gaps:
        wait = max(0.0, wait + service - gap)
        found.append(1e3 * (wait + service))
    return found


class Attempt:
    """A server with one thread; requests arrive at random times."""

    def __init__(self, service: float, limit: float) -> None:
        self._service, self._limit = service, limit
        self.asked: list[float] = []
        self.disturbed = 0

    async def __call__(self, rate: float) -> Trial:
        self.asked.append(rate)
        latencies = queue(rate, self._service, round(rate * seconds_for(rate)), len(self.asked))
        late = sum(each > self._limit for each in latencies)
        why = "other programs took a core" if len(self.asked) <= self.disturbed else ""
        return Trial(
            rate, len(latencies), late, 0.0, kept=keeps(latencies, self._limit), disturbed=why
        )


def test_the_rate_is_where_queueing_theory_has_it() -> None:
    """M/D/1, 20 ms each, p99 within 100 ms: exact from a long simulation, 33 per second."""
    long = [
        rate for rate in range(10, 50) if np.percentile(queue(rate, 0.020, 400_000, 1), 99) <= 100
    ]
    attempt = Attempt(0.020, 100)
    trials, rate = asyncio.run(search(attempt, 50.0, 12))
    # It may be less, since a rate must keep the limit with confidence.
    assert 0.6 * max(long) <= rate <= 1.05 * max(long)
    kept = [trial.rate for trial in trials if trial.kept]
    assert rate == max(kept)
    missed = [trial.rate for trial in trials if not trial.kept]
    assert min(missed) / rate <= FINE * 1.001 or len(trials) == 12


def test_a_limit_that_no_rate_keeps_ends_the_search() -> None:
    trials, rate = asyncio.run(search(Attempt(0.020, 10), 50.0, 20))
    assert rate == 0
    assert 3 < len(trials) < 12


def test_a_disturbed_trial_decides_nothing() -> None:
    attempt = Attempt(0.001, 1000)
    attempt.disturbed = 2
    trials, rate = asyncio.run(search(attempt, 50.0, 4))
    assert attempt.asked[0] == attempt.asked[1] == attempt.asked[2] == 35
    assert rate == pytest.approx(math.sqrt(35 * 50))
    assert len(trials) == 4


def test_a_trial_is_long_enough() -> None:
    assert seconds_for(20) * 20 > 662
    assert [late_allowed(count) for count in (458, 459, 662, 1157)] == [-1, 0, 1, 4]
