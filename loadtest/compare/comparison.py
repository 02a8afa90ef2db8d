"""The comparison: each model alone under the same loads, by both ways, in alternating order.

In: names of models, a gateway with its Triton (started here or given). Out: one result, written
after every window, so that a run that is stopped leaves what it had. A round visits every model
under every load for one window; the next round goes the other way round. There are rounds until, at
every point, the last three windows agree, or until a limit is reached.
"""

import dataclasses
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.progress import Progress

from loadtest import results, usage
from loadtest.compare.measure import Load, Visit, failures, percentiles, visit
from loadtest.load import loop, sample_images
from loadtest.load.engine import MOST_FAILURES
from loadtest.load.http import Http
from loadtest.load.http_target import GatewayTarget
from loadtest.load.target import Target
from loadtest.load.triton_target import Triton, TritonTarget
from loadtest.machine import conditions
from loadtest.progress import bar
from loadtest.servers import processes
from loadtest.servers.stack import Stack

AGREE = 0.1  # of the median, between the slowest and the fastest of the last windows
AGREEING = 3  # so many windows
DEFAULT_SHARES = (0.4, 0.8)  # of what the slowest model can do, where no rates are given


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured."""

    models: tuple[str, ...]
    concurrency: tuple[int, ...]
    rates: tuple[float, ...]  # images per second; empty: DEFAULT_SHARES of the slowest model
    seconds: float  # of a window
    warm: float  # seconds before it that do not count
    min_rounds: int
    max_rounds: int
    until: float  # on time.monotonic: no round begins that would end later
    sample_images: tuple[sample_images.SampleImage, ...]


@dataclasses.dataclass
class Point:
    """One model under one load: its windows so far, and all of their samples."""

    model: str
    load: Load
    visits: list[Visit] = dataclasses.field(default_factory=list)
    milliseconds: list[float] = dataclasses.field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether the last windows agree; fewer than AGREEING say nothing."""
        rates = [each.rate for each in self.visits[-AGREEING:]]
        enough = len(rates) == AGREEING
        return enough and max(rates) - min(rates) <= AGREE * statistics.median(rates)

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "model": self.model,
            **dataclasses.asdict(self.load),
            "rate_measured": statistics.median(each.rate for each in self.visits),
            "agrees": self.agrees,
            "requests": len(self.milliseconds),
            "milliseconds": percentiles(self.milliseconds),
            "windows": [dataclasses.asdict(each) for each in self.visits],
        }


class Comparison:
    """One run."""

    def __init__(
        self, plan: Plan, stack: Stack, settings: dict[str, Any], out: Path | None
    ) -> None:
        self._plan, self._stack = plan, stack
        self.out = out  # named once the models' precision is known, if it is None
        self._targets: dict[tuple[str, str], Target] = {}
        self._about: dict[str, dict[str, Any]] = {}
        self._points: list[Point] = []
        self.failures: Counter[tuple[str, str, str]] = Counter()
        self._began = time.monotonic()
        self.result: results.Result = {
            "kind": "compare",
            "complete": False,
            "ok": True,
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
                await self._rounds(triton, progress)
        finally:
            http.close()
            await triton.close()

    async def _prepare(self, http: Http, triton: Triton, progress: Progress) -> None:
        """Record the right answers of every model, and choose the rates."""
        plan, capacities = self._plan, []
        task = progress.add_task("recording the right answers", total=len(plan.models))
        for model in plan.models:
            about = await http.json(http.request(f"/models/{model}"))
            settings = await triton.about(model)
            precision = about["provenance"].get("precision", "fp32")
            self._about[model] = {
                **{key: about[key] for key in ("version", "input", "classes", "provenance")},
                **dataclasses.asdict(settings),
            }
            targets: tuple[Target, Target] = (
                await GatewayTarget.prepare(http, model, plan.sample_images, about),
                await TritonTarget.prepare(triton, model, plan.sample_images, precision),
            )
            self._targets[model, "gateway"], self._targets[model, "triton"] = targets
            if not plan.rates:
                most = Point(model, Load("gateway", max(plan.concurrency)))
                capacities.append((await self._visit(most, triton, 0)).rate)
            progress.advance(task)
        progress.remove_task(task)
        if self.out is None:
            precisions = {each["provenance"].get("precision", "") for each in self._about.values()}
            about = ("-".join(sorted(precisions)), *plan.models)
            self.out = usage.RESULTS / results.file_name("compare", *about)
        rates = plan.rates or [round(share * min(capacities), 2) for share in DEFAULT_SHARES]
        loads = [Load("gateway", each) for each in plan.concurrency]
        loads += [Load("triton", each) for each in plan.concurrency]
        loads += [Load("gateway", 0, rate) for rate in rates if rate > 0]
        self._points = [Point(model, load) for load in loads for model in plan.models]

    async def _rounds(self, triton: Triton, progress: Progress) -> None:
        plan, longest = self._plan, 0.0
        task = progress.add_task("", total=plan.max_rounds * len(self._points))
        for number in range(1, plan.max_rounds + 1):
            began = time.monotonic()
            if number > 1 and began + longest > plan.until:
                break
            for point in self._points if number % 2 else reversed(self._points):
                progress.update(task, description=f"round {number}: {point.model}, {point.load}")
                visited = await self._visit(point, triton, number)
                self._write()
                if visited.failed >= MOST_FAILURES:
                    return
                progress.advance(task)
            longest = max(longest, time.monotonic() - began)
            if number >= plan.min_rounds and all(point.agrees for point in self._points):
                break
        self.result["complete"] = True
        self._write()

    async def _visit(self, point: Point, triton: Triton, number: int) -> Visit:
        visited, window = await visit(
            self._targets[point.model, point.load.way],
            point.load,
            model=point.model,
            number=number,
            warm=self._plan.warm,
            seconds=self._plan.seconds,
            triton=triton,
            instances=self._about[point.model]["instances"],
            servers=self._stack.servers,
        )
        point.visits.append(visited)
        point.milliseconds += window.milliseconds
        for error, count in failures(window).items():
            self.failures[point.model, str(point.load), error] += count
        return visited

    def _write(self) -> None:
        self.result |= {
            "ok": not self.failures,
            "seconds": round(time.monotonic() - self._began, 1),
            "generator_cpu_seconds": round(processes.own_cpu_seconds(), 1),
            "models": self._about,
            "points": [point.document() for point in self._points if point.visits],
            "failures": [
                {"model": model, "load": load, "error": error, "count": count}
                for (model, load, error), count in self.failures.most_common(50)
            ],
        }
        if self.out is not None:
            results.write(self.out, self.result)


def run(plan: Plan, stack: Stack, settings: dict[str, Any], out: Path | None) -> Comparison:
    """Measure all of it; raises TargetError."""
    comparison = Comparison(plan, stack, settings, out)
    loop.run(comparison.run())
    return comparison
