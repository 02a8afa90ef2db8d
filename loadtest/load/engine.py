"""The load engine: sends requests to a target and times every answer.

In: a target, a load, a time. Out: a sample for every request. Closed loop: a fixed number of
requests is always under way; each client sends its next request when it has the answer to the last.
Open loop: each request is sent when it is due, whether or not earlier requests have been answered,
and is timed from the moment at which it was due. So a stall counts in all requests that would have
waited ("coordinated omission" is avoided). A failed request stays among the samples.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import math
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from loadtest.load.target import Answered, Target

clock = time.perf_counter
MOST_FAILURES = 100  # of a window; with so many failures the window ends early
# The most requests under way in the open loop, where each request needs a connection. A request
# that is due beyond this limit waits in this program, and the wait counts in its latency.
MOST_UNDER_WAY = 2000
SPARE_DESCRIPTORS = 200  # for the other files that a process has open


class Meter(Protocol):
    """Reads other programs' counters; is told when the window begins and when it ends."""

    def begin(self) -> None:
        """The window begins now."""
        ...

    def end(self) -> None:
        """The window ends now."""
        ...


class Sample(NamedTuple):
    """One request; times in seconds on `clock`."""

    due: float
    sent: float  # when this program began to send it; in the closed loop the same as `due`
    done: float
    answered: Answered

    @property
    def seconds(self) -> float:
        """The latency, from the moment at which the request was due; infinite if it failed."""
        return math.inf if self.answered.error else self.done - self.due


Record = Callable[[Sample], object]


async def keep_under_way(
    target: Target, concurrency: int, record: Record, enough: Callable[[], bool]
) -> None:
    """Closed loop: `concurrency` requests are under way until `enough()`; `record` gets samples.

    Returns when the last answer has come.
    """
    numbers = itertools.count()

    async def client() -> None:
        while not enough():
            sent = clock()
            answered = await target.ask(next(numbers))
            record(Sample(sent, sent, clock(), answered))

    await asyncio.gather(*(client() for _ in range(concurrency)))


async def send_when_due(target: Target, moments: Iterable[float], record: Record) -> None:
    """Open loop: send a request at each of the moments (of `clock`); `record` gets its sample.

    Returns when the last answer has come.
    """
    free = asyncio.Semaphore(allow_connections(MOST_UNDER_WAY))

    async def client(number: int, due: float, sent: float) -> None:
        async with free:
            answered = await target.ask(number)
        record(Sample(due, sent, clock(), answered))

    async with asyncio.TaskGroup() as group:
        for number, due in enumerate(moments):
            if (pause := due - clock()) > 0:
                await asyncio.sleep(pause)
            group.create_task(client(number, due, clock()))


def allow_connections(wanted: int) -> int:
    """Raise the limit of open connections to `wanted`, if the system allows; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_DESCRIPTORS
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(wanted, soft - SPARE_DESCRIPTORS)


@contextlib.asynccontextmanager
async def under_way(target: Target, concurrency: int) -> AsyncIterator[list[Sample]]:
    """Closed loop that runs while the context is open; the list of samples grows meanwhile."""
    samples: list[Sample] = []
    enough = asyncio.Event()
    load = asyncio.create_task(keep_under_way(target, concurrency, samples.append, enough.is_set))
    try:
        yield samples
    finally:
        enough.set()
        await load


@contextlib.asynccontextmanager
async def arriving(target: Target, arrivals: Iterable[float]) -> AsyncIterator[list[Sample]]:
    """Open loop that runs while the context is open; `arrivals` are in seconds from now.

    The list of samples grows meanwhile; after the context it has every request that was sent.
    """
    samples: list[Sample] = []
    enough = asyncio.Event()
    begin = clock()

    def moments() -> Iterator[float]:
        for seconds in arrivals:
            if enough.is_set():
                return
            yield begin + seconds

    load = asyncio.create_task(send_when_due(target, moments(), samples.append))
    try:
        yield samples
    finally:
        enough.set()
        await load


async def peak(target: Target, concurrency: int, seconds: float) -> list[Sample]:
    """The samples of a closed loop whose answers came within `seconds`."""
    end = clock() + seconds
    samples: list[Sample] = []
    await keep_under_way(target, concurrency, samples.append, lambda: clock() >= end)
    return [sample for sample in samples if sample.done <= end]


async def at_rate(target: Target, arrivals: Iterable[float], seconds: float) -> list[Sample]:
    """The samples of an open loop whose requests were due within `seconds`."""
    begin = clock()
    samples: list[Sample] = []
    inside = itertools.takewhile(lambda moment: moment < seconds, arrivals)
    await send_when_due(target, (begin + moment for moment in inside), samples.append)
    return samples


@dataclasses.dataclass(frozen=True)
class Window:
    """The outcome of a window; `errors` also has the failures during the warm-up."""

    seconds: float
    images: int  # answered rightly within the window
    samples: list[Sample]  # the requests that belong to the window
    errors: list[str]
    late: list[float] = dataclasses.field(default_factory=list)  # sent - due, in seconds

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def milliseconds(self) -> list[float]:
        """Latency of every request; infinite where it failed."""
        return [1e3 * sample.seconds for sample in self.samples]


async def closed(
    target: Target, concurrency: int, warm: float, seconds: float, meter: Meter
) -> Window:
    """A window of the closed loop.

    The window begins and ends with an answer. A batch answers many requests at once, and a window
    that began just before such a burst would count one burst too many.
    """
    samples: list[Sample] = []
    errors: list[str] = []
    begin = first = last = clock()
    began = stopped = False

    def record(sample: Sample) -> None:
        nonlocal first, last, began, stopped
        samples.append(sample)
        if sample.answered.error:
            errors.append(sample.answered.error)
        if stopped:
            return
        if not began and sample.done >= begin + warm:
            began, first = True, sample.done
            meter.begin()
        elif began and (sample.done >= first + seconds or len(errors) >= MOST_FAILURES):
            stopped, last = True, sample.done
            meter.end()
        elif len(errors) >= MOST_FAILURES:
            stopped = True

    await keep_under_way(target, concurrency, record, lambda: stopped)
    inside = [sample for sample in samples if began and first < sample.done <= last]
    right = sum(not sample.answered.error for sample in inside)
    return Window(last - first, right * target.images, inside, errors)


async def opened(
    target: Target, arrivals: Iterable[float], warm: float, seconds: float, meter: Meter
) -> Window:
    """A window of the open loop: the requests that are due in it; `arrivals`: seconds from now.

    The function waits for the answers to all requests, and ends a window early that has too many
    failures.
    """
    samples: list[Sample] = []
    errors: list[str] = []
    begin = clock()
    first, last = begin + warm, begin + warm + seconds

    def record(sample: Sample) -> None:
        samples.append(sample)
        if sample.answered.error:
            errors.append(sample.answered.error)

    def moments() -> Iterator[float]:
        for moment in arrivals:
            due = begin + moment
            if due >= last or len(errors) >= MOST_FAILURES:
                return
            yield due

    async def bounds() -> None:
        await asyncio.sleep(max(0.0, first - clock()))
        meter.begin()
        await asyncio.sleep(max(0.0, last - clock()))
        meter.end()

    async with asyncio.TaskGroup() as group:
        group.create_task(bounds())
        group.create_task(send_when_due(target, moments(), record))
    right = sum(not s.answered.error for s in samples if first <= s.done < last)
    inside = sorted((s for s in samples if first <= s.due < last), key=lambda s: s.due)
    late = [sample.sent - sample.due for sample in inside]
    return Window(last - first, right * target.images, inside, errors, late)
