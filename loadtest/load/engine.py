"""Puts load on a target and measures one window of it.

In: a target, how hard to press, how long. Out: a `Window` with a sample for every request. Closed
loop: so many requests are always under way. Open loop: requests leave at fixed times, whether or
not earlier ones have been answered, and each is timed from when it was due, so that a stall is seen
by all that it would have kept waiting.
"""

import asyncio
import dataclasses
import itertools
import math
import time
from typing import Protocol

from loadtest.load.target import Answered, Target

clock = time.perf_counter
MOST_FAILURES = 100  # then the rest of the window is not worth waiting for
MOST_UNDER_WAY = 1000  # in the open loop; what is due beyond it has failed


class Meter(Protocol):
    """Told when the window begins and when it ends, to read what is counted elsewhere."""

    def begin(self) -> None:
        """The window begins now."""
        ...

    def end(self) -> None:
        """The window ends now."""
        ...


@dataclasses.dataclass(frozen=True)
class Sample:
    """One request; times in seconds on `clock`."""

    due: float
    done: float
    answered: Answered


@dataclasses.dataclass(frozen=True)
class Window:
    """What happened; a failure counts wherever it was, also while warming up."""

    seconds: float
    images: int  # answered rightly within the window
    samples: list[Sample]  # the requests that belong to the window
    errors: list[str]
    late: list[float] = dataclasses.field(default_factory=list)  # seconds; see `at_rate`

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def milliseconds(self) -> list[float]:
        """Of the right answers."""
        return [1e3 * (s.done - s.due) for s in self.samples if not s.answered.error]


async def closed(
    target: Target, concurrency: int, warm: float, seconds: float, meter: Meter
) -> Window:
    """`concurrency` requests are always under way.

    The window lasts from an answer to an answer. Batches answer many requests at once, and a window
    that began just before such a burst would count one too many.
    """
    numbers = itertools.count()
    samples: list[Sample] = []
    errors: list[str] = []
    begin = first = last = clock()
    began = stopped = False

    async def client() -> None:
        nonlocal first, last, began, stopped
        while not stopped:
            sent = clock()
            answered = await target.ask(next(numbers))
            done = clock()
            samples.append(Sample(sent, done, answered))
            if answered.error:
                errors.append(answered.error)
            if stopped:
                continue
            if not began and done >= begin + warm:
                began, first = True, done
                meter.begin()
            elif began and (done >= first + seconds or len(errors) >= MOST_FAILURES):
                stopped, last = True, done
                meter.end()
            elif len(errors) >= MOST_FAILURES:
                stopped = True

    await asyncio.gather(*(client() for _ in range(concurrency)))
    inside = [sample for sample in samples if began and first < sample.done <= last]
    right = sum(not sample.answered.error for sample in inside)
    return Window(last - first, right * target.images, inside, errors)


async def at_rate(target: Target, rate: float, warm: float, seconds: float, meter: Meter) -> Window:
    """`rate` requests per second, evenly spaced; `late` is by how much this program was behind."""
    late: list[float] = []
    samples: list[Sample] = []
    errors: list[str] = []
    under_way = 0
    begin = clock()
    first, last = begin + warm, begin + warm + seconds

    async def client(number: int, due: float) -> None:
        nonlocal under_way
        under_way += 1
        answered = await target.ask(number)
        under_way -= 1
        samples.append(Sample(due, clock(), answered))
        if answered.error:
            errors.append(answered.error)

    async with asyncio.TaskGroup() as group:
        started = False
        for number in range(math.ceil(rate * (warm + seconds))):
            due = begin + number / rate
            if (pause := due - clock()) > 0:
                await asyncio.sleep(pause)
            late.append(max(0.0, clock() - due))
            if not started and due >= first:
                started = True
                meter.begin()
            if under_way >= MOST_UNDER_WAY:
                errors.append(f"not sent: {MOST_UNDER_WAY} requests were under way")
            else:
                group.create_task(client(number, due))
            if len(errors) >= MOST_FAILURES:
                break
        await asyncio.sleep(max(0.0, last - clock()))
        meter.end()
    right = sum(not s.answered.error for s in samples if first <= s.done < last)
    inside = [sample for sample in samples if first <= sample.due < last]
    return Window(seconds, right * target.images, inside, errors, late)
