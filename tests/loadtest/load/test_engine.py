"""The load engine on targets whose truth is known: each plants what the engine must see.

The clock is one of its own (`virtual_time`), so the truth is exact; the comparisons of
tests/loadtest/compare run the engine by the real clock.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from loadtest.load import engine
from loadtest.load.arrivals import even, poisson
from loadtest.load.target import Answered
from tests.loadtest.load import virtual_time


class Planted:
    """Answers after `seconds(number)`, one request at a time if `lone`; fails where it says."""

    images = 1

    def __init__(
        self,
        seconds: Callable[[int], float],
        *,
        lone: bool = False,
        fails: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self._seconds, self._fails = seconds, fails
        self._free = asyncio.Semaphore(1) if lone else asyncio.Semaphore(10**6)
        self.asked = self.under_way = self.most = 0

    async def ask(self, number: int) -> Answered:
        self.asked += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        async with self._free:
            await asyncio.sleep(self._seconds(number))
        self.under_way -= 1
        return Answered("planted", 500) if self._fails(number) else Answered()


class Bounds:
    """A meter that notes when it was told what."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def begin(self) -> None:
        self.at.append(engine.clock())

    def end(self) -> None:
        self.at.append(engine.clock())


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """By the virtual clock, within half a minute of it."""

    async def timed(clock: Callable[[], float]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "clock", clock)
            await asyncio.wait_for(test(), 30)

    virtual_time.run(timed)


def test_the_closed_loop_keeps_so_many_under_way() -> None:
    async def test() -> None:
        target, bounds = Planted(lambda _: 0.02), Bounds()
        window = await engine.closed(target, 5, 0.1, 0.5, bounds)
        assert target.most == 5
        assert target.under_way == 0
        assert len(window.samples) == window.images
        assert window.seconds == pytest.approx(bounds.at[1] - bounds.at[0])
        assert window.seconds >= 0.5
        assert window.rate == pytest.approx(5 / 0.02)  # five at once, each 20 ms

    run(test)


def test_a_failure_stays_among_the_samples() -> None:
    async def test() -> None:
        target = Planted(lambda _: 0.005, fails=lambda number: number % 4 == 0)
        window = await engine.opened(target, even(100), 0.0, 0.6, Bounds())
        failed = [value for value in window.milliseconds if value == float("inf")]
        assert len(window.samples) == 60
        assert len(failed) == len(window.errors) == 15
        assert window.images == 45

    run(test)


def test_a_window_that_only_fails_is_broken_off() -> None:
    async def test() -> None:
        target = Planted(lambda _: 0.001, fails=lambda _: True)
        began = engine.clock()
        window = await engine.closed(target, 8, 0.1, 60.0, Bounds())
        assert len(window.errors) >= engine.MOST_FAILURES
        assert engine.clock() - began < 10

    run(test)


def test_a_stall_is_seen_by_all_that_it_keeps_waiting() -> None:
    """Coordinated omission: the server stands still for 300 ms once, at 100 requests per second.

    Those due meanwhile wait for what is left of the stall: 0 to 300 ms, evenly. A clock that starts
    when a request is sent by a client that waits for its turn would see one slow request.
    """

    async def test() -> None:
        target = Planted(lambda number: 0.3 if number == 20 else 0.0, lone=True)
        window = await engine.opened(target, even(100), 0.0, 1.0, Bounds())
        slow = sorted(window.milliseconds)[-30:]
        assert slow == pytest.approx(range(10, 301, 10))
        assert sum(window.milliseconds) == pytest.approx(
            sum(slow), abs=0.01
        )  # the others are quick

    run(test)


def test_random_arrivals_queue_where_even_ones_do_not() -> None:
    """One server, 10 ms each, half of the time busy: the mean wait of M/D/1 is 5 ms, and of D/D/1
    none (Kleinrock 1975, section 5.6). Each request waits as Lindley's recursion says."""

    async def test() -> None:
        mean = {}
        for name, arrivals in (("even", even(50)), ("poisson", poisson(50, 5))):
            target = Planted(lambda _: 0.010, lone=True)
            window = await engine.opened(target, arrivals, 0.0, 3.0, Bounds())
            mean[name] = float(np.mean(window.milliseconds))
        assert mean["even"] == pytest.approx(10)
        wait, before, waits = 0.0, -1.0, []
        for due in itertools.takewhile(lambda moment: moment < 3.0, poisson(50, 5)):
            wait = max(0.0, wait + 0.010 - (due - before))
            waits.append(wait)
            before = due
        assert mean["poisson"] == pytest.approx(10 + 1e3 * np.mean(waits))
        assert 2 < mean["poisson"] - mean["even"] < 8  # 5 in the long run; these are 3 s

    run(test)


def test_a_backlog_is_sent_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the connections that there may be, requests wait here, and their time counts."""
    monkeypatch.setattr(engine, "MOST_UNDER_WAY", 3)

    async def test() -> None:
        target = Planted(lambda _: 0.05)
        window = await engine.opened(target, even(200), 0.0, 0.3, Bounds())
        assert target.most == 3
        assert target.asked == len(window.samples) == 60
        # Three at once, 50 ms each, of which the third begins after 10 ms. So the last of 60 is
        # done after 1.01 s, and was due after 0.295 s.
        assert max(window.milliseconds) == pytest.approx(715)

    run(test)


def test_load_in_the_background_ends_with_its_context() -> None:
    async def test() -> None:
        target = Planted(lambda _: 0.02)
        async with engine.under_way(target, 4) as samples:
            await asyncio.sleep(0.2)
            seen = len(samples)
        assert 36 <= seen <= 40  # four at once, each 20 ms
        assert len(samples) == target.asked
        assert target.under_way == 0
        async with engine.arriving(target, itertools.chain(even(50))) as samples:
            await asyncio.sleep(0.2)
        assert 10 <= len(samples) <= 11  # 50 a second for 0.2 s, and perhaps one at its end
        assert target.under_way == 0

    run(test)


def test_a_peak_counts_what_was_done_in_time() -> None:
    async def test() -> None:
        samples = await engine.peak(Planted(lambda _: 0.03), 2, 0.5)
        assert len(samples) == 32  # 16 times 30 ms for each of the two
        samples = await engine.at_rate(Planted(lambda _: 0.2), even(40), 0.5)
        assert len(samples) == 20  # all that were due, also what was answered later

    run(test)
