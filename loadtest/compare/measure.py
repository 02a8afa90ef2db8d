"""One window, with the counters of Triton and of the kernel over the same time.

In: a target and a load. Out: a `Visit`, plain data for the results: rate, latencies, phases,
Triton's counts, the CPU seconds of each role, the failures, and the use by other programs.
"""

import asyncio
import dataclasses
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from loadtest.load.arrivals import ARRIVALS
from loadtest.load.engine import Window, closed, opened
from loadtest.load.target import Target
from loadtest.load.triton_target import Statistics, Triton
from loadtest.machine.disturbance import FOREIGN_LIMIT, Disturbance, Watch
from loadtest.machine.gpu import gpu_state, gpus
from loadtest.servers.processes import Watched, own_cpu_seconds
from loadtest.stats import percentiles as stats


@dataclasses.dataclass(frozen=True)
class Load:
    """The load on one model, and the way that its requests take."""

    way: str  # "gateway" or "triton"
    concurrency: int = 0  # closed loop
    rate: float = 0.0  # open loop, images per second; 0 in the closed loop

    def __str__(self) -> str:
        press = f"{self.rate:.3g}/s" if self.rate else f"{self.concurrency} at once"
        return f"{self.way}, {press}"


@dataclasses.dataclass(frozen=True)
class Visit:
    """One window of one model under one load."""

    round: int
    seconds: float
    images: int
    rate: float  # images per second
    latencies_ms: list[float | None]  # of each request; None where it failed
    phases: dict[str, float]  # mean milliseconds
    cpu_seconds: dict[str, float]  # by role; the load generator among them
    average_batch: float | None
    queue_ms: float | None  # mean, in Triton
    compute_ms: float | None  # mean of an execution
    busy: float | None  # share of the time in which an instance computes
    late_ms: float  # of this program in the open loop, 99th percentile
    failed: int
    machine: Disturbance | None  # None where the servers are not seen
    gpus: list[dict[str, str]]  # at the end of the window; none on a machine without
    disturbed: str  # why the window does not count; "" if it counts

    @property
    def milliseconds(self) -> list[float]:
        """Latencies, infinite where a request failed."""
        return milliseconds(self.latencies_ms)


class _Counters:
    """Reads Triton's and the kernel's counters when a window begins and when it ends."""

    def __init__(self, triton: Triton | None, model: str, servers: Mapping[str, int]) -> None:
        self._triton, self._model, self._servers = triton, model, Watched(servers)
        self.watch = Watch(self._servers)
        self._cpu: list[dict[str, float]] = []
        self._reads: list[asyncio.Task[tuple[float, Statistics]]] = []

    def begin(self) -> None:
        self.watch.begin()
        self._read()

    def end(self) -> None:
        self.watch.end()
        self._read()

    def _read(self) -> None:
        self._cpu.append({**self._servers.cpu_seconds(), "generator": own_cpu_seconds()})
        if self._triton is not None:
            self._reads.append(asyncio.create_task(self._statistics(self._triton)))

    async def _statistics(self, triton: Triton) -> tuple[float, Statistics]:
        found = await triton.statistics(self._model)
        return time.perf_counter(), found

    def cpu(self) -> dict[str, float]:
        """CPU seconds of each role between the two readings."""
        if len(self._cpu) < 2:
            return {}
        before, after = self._cpu
        return {role: round(after[role] - before[role], 4) for role in after if role in before}

    async def counted(self) -> tuple[float, Statistics] | None:
        """The seconds between the two readings, and Triton's counts of that time."""
        reads = await asyncio.gather(*self._reads)
        if len(reads) < 2:
            return None
        return reads[1][0] - reads[0][0], reads[1][1] - reads[0][1]


async def visit(
    target: Target,
    load: Load,
    *,
    model: str,
    number: int,
    warm: float,
    seconds: float,
    triton: Triton | None,
    instances: int,
    servers: Mapping[str, int],
    arrivals: str = "poisson",
    foreign_limit: float = FOREIGN_LIMIT,
) -> tuple[Visit, Window]:
    """Measure one window.

    Args:
        target: The target of the requests.
        load: The load to put on the target.
        model: The model's name, under which Triton counts.
        number: The number of the round, which seeds the arrivals.
        warm: Seconds before the window.
        seconds: The length of the window.
        triton: The Triton that serves; None where its counters cannot be read.
        instances: The number of instances of the model.
        servers: Process ids by role; none where the servers run elsewhere or are not visible.
        arrivals: A name in ARRIVALS, for the open loop.
        foreign_limit: Share of all cores that other programs may take before the window is
            disturbed.
    """
    counters = _Counters(triton, model, servers)
    if load.rate:
        # The requests to every model of a round are due at the same moments, so that the models are
        # measured under the same conditions.
        moments = ARRIVALS[arrivals](load.rate, number)
        window = await opened(target, moments, warm, seconds, counters)
    else:
        window = await closed(target, load.concurrency, warm, seconds, counters)
    counted = await counters.counted()
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        # Ctrl-C cancels this task only once, and the awaited code may have swallowed the
        # cancellation. Without this check a whole run went on after Ctrl-C.
        raise asyncio.CancelledError
    batch = queue = compute = busy = None
    if counted is not None and counted[1].executions > 0:
        took, stats_of = counted
        batch = stats_of.images / stats_of.executions
        queue = 1e3 * stats_of.queue_seconds / max(1, stats_of.requests)
        compute = 1e3 * stats_of.compute_seconds / stats_of.executions
        busy = stats_of.compute_seconds / took / instances
    machine = counters.watch.found if servers else None
    found = Visit(
        round=number,
        seconds=round(window.seconds, 4),
        images=window.images,
        rate=round(window.rate, 4),
        latencies_ms=[None if math.isinf(ms) else round(ms, 2) for ms in window.milliseconds],
        phases=mean_phases(window),
        cpu_seconds=counters.cpu(),
        average_batch=_rounded(batch),
        queue_ms=_rounded(queue),
        compute_ms=_rounded(compute),
        busy=_rounded(busy),
        late_ms=round(1e3 * float(np.percentile(window.late or [0.0], 99)), 3),
        failed=len(window.errors),
        machine=machine,
        gpus=await asyncio.to_thread(gpu_state) if gpus() else [],
        disturbed=machine.reason(limit=foreign_limit) if machine is not None else "",
    )
    return found, window


def milliseconds(recorded: Sequence[float | None]) -> list[float]:
    """Latencies in the form of a result, infinite where a request failed."""
    return [math.inf if value is None else value for value in recorded]


def percentiles(latencies: Sequence[float]) -> dict[str, float | str]:
    """The percentiles for which there are enough samples; "failed" where a failed request has the
    rank."""
    return {
        f"{level:g}": "failed" if math.isinf(found.value) else round(found.value, 3)
        for level, found in stats.percentiles(latencies).items()
    }


def mean_phases(window: Window) -> dict[str, float]:
    """Mean milliseconds of each phase of the right answers."""
    rows = [phases for s in window.samples if (phases := s.answered.phases)]
    names = rows[0] if rows else {}
    return {
        name: round(math.fsum(row.get(name, 0) for row in rows) / len(rows), 3) for name in names
    }


def failures(window: Window) -> Counter[str]:
    """The errors of a window, and how often each happened."""
    return Counter(window.errors)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
