"""The comparison: each model alone under the same loads, by both ways, in alternating order.

In: names of models, a gateway with its Triton (started here or given). Out: one result, written
after every window, so that a stopped run keeps the windows it has measured.

First the closed loop: a round measures one window of every model under every load, and the next
round goes in the opposite order. After the least number of rounds only the loads that need more
windows are measured: the greatest load until its ratios are known well enough, then those whose
windows do not agree. Then the open loop: each model at shares of its capacity, round by round,
until there are enough samples for the percentiles. Last, if a latency limit is given, the greatest
rate of each model that keeps the limit. A window in which other programs used the machine is
repeated.
"""

import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from loadtest import results, usage
from loadtest.compare import ramp
from loadtest.compare.measure import Load, Visit, failures, visit
from loadtest.compare.points import Point, lacking
from loadtest.load import answers, loop, sample_images
from loadtest.load.engine import MOST_FAILURES
from loadtest.load.http import Http
from loadtest.load.http_target import GatewayTarget
from loadtest.load.target import Target
from loadtest.load.triton_target import Triton, TritonTarget
from loadtest.machine import conditions
from loadtest.progress import bar
from loadtest.servers import processes
from loadtest.servers.stack import Stack
from loadtest.stats.percentiles import least_samples
from loadtest.stats.ratios import LEAST_PAIRS

REPEATS = 2  # of a window that was disturbed
RAMP_TRIALS = 8
DISTURBED_AT_MOST = 0.5  # of all windows; with more the run ends, as its result would mean nothing
LEAST_WINDOWS = 6  # measured before the share of disturbed windows is judged
CLOSED_SHARE = 0.5  # of the time


@dataclasses.dataclass(frozen=True)
class Plan:
    """The settings of a comparison."""

    models: tuple[str, ...]
    concurrency: tuple[int, ...]
    rates: tuple[float, ...]  # images per second of every model; empty: by `shares`
    shares: tuple[float, ...]  # of each model's capacity
    arrivals: str  # a name of loadtest.load.arrivals
    seconds: float  # of a window in the closed loop
    open_seconds: float  # of a window in the open loop
    warm: float  # seconds before a window that do not count
    min_rounds: int
    max_rounds: int
    slo_p99: float | None  # milliseconds
    minutes: float
    foreign_limit: float  # share of all cores that other programs may take
    sample_images: tuple[sample_images.SampleImage, ...]


class DisturbedError(RuntimeError):
    """Other programs use this machine so much that nothing can be measured."""


class Comparison:
    """One run."""

    def __init__(
        self, plan: Plan, stack: Stack, settings: dict[str, Any], out: Path | None
    ) -> None:
        self._plan, self._stack = plan, stack
        self.out = out  # named once the models' precision is known, if it is None
        self._targets: dict[tuple[str, str], Target] = {}
        self._about: dict[str, dict[str, Any]] = {}
        self._closed: list[Point] = []
        self._open: list[Point] = []
        self._ramps: list[dict[str, Any]] = []
        self._windows = self._disturbed = 0
        self.failures: Counter[tuple[str, str, str]] = Counter()
        self._began = time.monotonic()
        self.result: results.Result = {
            "kind": "compare",
            "complete": False,
            "ok": True,
            "disturbed": "",
            "conditions": conditions.conditions(),
            "settings": settings,
        }

    async def run(self) -> None:
        """Measure; raises TargetError when something cannot be measured at all."""
        http, triton = Http(self._stack.url), Triton(self._stack.triton)
        try:
            self.result["conditions"]["Triton"] = await triton.version()
            with bar() as progress:
                await self._prepare(http, triton, progress)
                try:
                    done = (
                        await self._measure_closed(triton, progress)
                        and await self._measure_open(triton, progress)
                        and await self._measure_ramps(triton, progress)
                    )
                    self.result["disturbed"] = self._too_few()
                    self.result["complete"] = done
                except DisturbedError as error:
                    self.result["disturbed"] = str(error)
            self._write()
        finally:
            http.close()
            await triton.close()

    async def _prepare(self, http: Http, triton: Triton, progress: Progress) -> None:
        """Record the right answers of every model."""
        plan = self._plan
        task = progress.add_task("recording the right answers", total=len(plan.models))
        for model in plan.models:
            about = await http.about(model)
            settings = await triton.about(model)
            precision = answers.precision_of(about["provenance"])
            self._about[model] = {
                **{key: about[key] for key in ("version", "input", "classes", "provenance")},
                **dataclasses.asdict(settings),
            }
            targets: tuple[Target, Target] = (
                await GatewayTarget.prepare(http, model, plan.sample_images, about),
                await TritonTarget.prepare(triton, model, plan.sample_images, precision),
            )
            self._targets[model, "gateway"], self._targets[model, "triton"] = targets
            progress.advance(task)
        progress.remove_task(task)
        if self.out is None:
            precisions = {each["provenance"].get("precision", "") for each in self._about.values()}
            names = ("-".join(sorted(precisions)), *plan.models)
            self.out = usage.results_folder() / results.file_name("compare", *names)
        loads = [Load("gateway", each) for each in plan.concurrency]
        loads += [Load("triton", each) for each in plan.concurrency]
        self._closed = [Point(model, load) for load in loads for model in plan.models]

    async def _measure_closed(self, triton: Triton, progress: Progress) -> bool:
        """Measure rounds until all is known well; false if a point fails too often to go on."""
        plan = self._plan
        until = self._began + 60 * plan.minutes * CLOSED_SHARE
        longest = 0.0  # seconds for a point of a round
        for number in range(1, plan.max_rounds + 1):
            began, points = time.monotonic(), self._closed
            if number > plan.min_rounds:
                points = lacking(self._closed, self._main())
                if not points or began + longest * len(points) > until:
                    break
            if not await self._round(points, number, plan.seconds, triton, progress):
                return False
            longest = max(longest, (time.monotonic() - began) / len(points))
        return True

    async def _measure_open(self, triton: Triton, progress: Progress) -> bool:
        """Measure each model at its rates, until there are enough samples or the time is over."""
        plan = self._plan
        for point in self._main():
            if not point.capacity:
                raise DisturbedError(f"no window of {point.model} was free of disturbances")
            rates = [(rate, 0.0) for rate in plan.rates]
            rates = rates or [(round(share * point.capacity, 2), share) for share in plan.shares]
            self._open += [
                Point(point.model, Load("gateway", 0, rate), share) for rate, share in rates
            ]
        enough = least_samples(99.0, 2)
        until, longest, number = self._began + 60 * plan.minutes, 0.0, 0
        while points := [point for point in self._open if point.samples < enough]:
            number += 1
            began = time.monotonic()
            if number > 1 and began + longest > until:
                break
            if not await self._round(points, number, plan.open_seconds, triton, progress):
                return False
            longest = max(longest, time.monotonic() - began)
        return True

    async def _round(
        self,
        points: Sequence[Point],
        number: int,
        seconds: float,
        triton: Triton,
        progress: Progress,
    ) -> bool:
        """Measure one window of each point, in reverse order in every second round.

        Returns false if a point fails too often to go on.
        """
        task = progress.add_task("", total=len(points))
        for point in points if number % 2 else reversed(points):
            progress.update(task, description=f"round {number}: {point.model}, {point.load}")
            visited = await self._visit(point, triton, number, seconds)
            if visited.failed >= MOST_FAILURES:
                return False
            progress.advance(task)
        progress.remove_task(task)
        return True

    async def _visit(self, point: Point, triton: Triton, number: int, seconds: float) -> Visit:
        """Measure a window, again while it is disturbed; returns the last one.

        Raises DisturbedError when too many windows were disturbed.
        """
        for _ in range(1 + REPEATS):
            visited = await self._window(point.model, point.load, triton, number, seconds)
            point.visits.append(visited)
            self._write()
            if not visited.disturbed:
                break
        return visited

    async def _window(
        self, model: str, load: Load, triton: Triton, number: int, seconds: float
    ) -> Visit:
        visited, window = await visit(
            self._targets[model, load.way],
            load,
            model=model,
            number=number,
            warm=self._plan.warm,
            seconds=seconds,
            triton=triton,
            instances=self._about[model]["instances"],
            servers=self._stack.servers,
            arrivals=self._plan.arrivals,
            foreign_limit=self._plan.foreign_limit,
        )
        for error, count in failures(window).items():
            self.failures[model, str(load), error] += count
        self._windows += 1
        self._disturbed += bool(visited.disturbed)
        if self._windows >= LEAST_WINDOWS and self._disturbed > DISTURBED_AT_MOST * self._windows:
            raise DisturbedError(
                f"{self._disturbed} of {self._windows} windows were disturbed, the last one "
                f"because {visited.disturbed or 'of what was before'}"
            )
        return visited

    async def _measure_ramps(self, triton: Triton, progress: Progress) -> bool:
        """Search the greatest rate of each model that keeps the latency limit."""
        limit = self._plan.slo_p99
        if limit is None:
            return True
        for point in self._main():
            task = progress.add_task(f"{point.model}: p99 within {limit:g} ms", total=None)
            attempt = functools.partial(self._attempt, point.model, limit, triton)
            trials, rate = await ramp.search(attempt, point.capacity, RAMP_TRIALS)
            self._ramps.append({
                "model": point.model, "slo_p99_ms": limit, "rate": rate,
                "trials": [dataclasses.asdict(each) for each in trials],
            })  # fmt: skip
            progress.remove_task(task)
            self._write()
        return True

    async def _attempt(self, model: str, limit: float, triton: Triton, rate: float) -> ramp.Trial:
        load = Load("gateway", 0, rate)
        visited = await self._window(model, load, triton, 1, ramp.seconds_for(rate))
        return ramp.trial(rate, visited, limit)

    def _main(self) -> list[Point]:
        """The points of the closed loop at the greatest load, through the gateway."""
        most = Load("gateway", max(self._plan.concurrency))
        return [point for point in self._closed if point.load == most]

    def _too_few(self) -> str:
        """Why there are no ratios; "" if disturbances left enough windows for them."""
        for point in self._closed:
            rounds = len({each.round for each in point.visits})
            if len(point.counted) < min(rounds, LEAST_PAIRS):
                return (
                    f"{point.model}, {point.load}: only {len(point.counted)} of {rounds} rounds "
                    "were free of disturbances"
                )
        return ""

    def _write(self) -> None:
        points = [*self._closed, *self._open]
        self.result |= {
            "ok": not self.failures,
            "seconds": round(time.monotonic() - self._began, 1),
            "generator_cpu_seconds": round(processes.own_cpu_seconds(), 1),
            "windows": self._windows,
            "windows_disturbed": self._disturbed,
            "models": self._about,
            "points": [point.document() for point in points if point.visits],
            "ramps": self._ramps,
            "failures": [
                {"model": model, "load": load, "error": error, "count": count}
                for (model, load, error), count in self.failures.most_common(50)
            ],
        }
        if self.out is not None:
            results.write(self.out, self.result)


def run(plan: Plan, stack: Stack, settings: dict[str, Any], out: Path | None) -> Comparison:
    """Run a whole comparison; raises TargetError."""
    comparison = Comparison(plan, stack, settings, out)
    loop.run(comparison.run())
    return comparison
