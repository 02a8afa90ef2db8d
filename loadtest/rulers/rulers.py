"""Independent measurements of one server: our engine, MLPerf LoadGen, wrk, perf_analyzer (Triton).

In: a running stack, a model, images. Out: a result with what each program measured, by rounds in
alternating order, with 95 % intervals, and whether these have values in common.
"""

import asyncio
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loadtest import results
from loadtest.load import answers, loop
from loadtest.load.arrivals import poisson
from loadtest.load.engine import Window, closed, opened
from loadtest.load.http import Http
from loadtest.load.http_target import GatewayTarget
from loadtest.load.sample_images import SampleImage
from loadtest.load.target import Answered, Target
from loadtest.load.triton_target import Triton, TritonTarget
from loadtest.machine import conditions
from loadtest.machine.disturbance import Watch
from loadtest.progress import bar, note
from loadtest.rulers import programs
from loadtest.rulers.agreement import LOADGEN, OURS, PERF, WRK, compared, rows_of
from loadtest.rulers.loadgen import SERVER_LIMIT_NS, Task
from loadtest.rulers.programs import Numbers
from loadtest.servers.processes import Watched
from loadtest.servers.stack import Stack
from loadtest.stats.percentiles import keeps, percentile

AT_ONCE = 8
SHARE = 0.5  # of the model's capacity: the rate of requests at random times
CONNECTIONS = 64  # of LoadGen, in the scenarios that need many connections
# So much longer are our runs than the queries need, so that each p99 has its 662 samples.
MORE_TOGETHER = 1.4
MORE_AT_RANDOM = 1.1
WARM = 0.5


class _NoMeter:
    def begin(self) -> None:
        """Nothing is read."""

    def end(self) -> None:
        """Nothing is read."""


class Together:
    """AT_ONCE requests that count as one, which ends with the last one: MLPerf's MultiStream."""

    images = AT_ONCE

    def __init__(self, target: Target) -> None:
        self._target = target

    async def ask(self, number: int) -> Answered:
        """AT_ONCE images."""
        first = number * AT_ONCE
        found = await asyncio.gather(*(self._target.ask(first + n) for n in range(AT_ONCE)))
        return next((each for each in found if each.error), found[0])


class Rulers:
    """One comparison of the programs."""

    def __init__(
        self,
        stack: Stack,
        model: str,
        sample_images: Sequence[SampleImage],
        *,
        seconds: float,
        queries: int,
        foreign_limit: float,
        out: Path,
    ) -> None:
        self._stack, self._model, self._images = stack, model, sample_images
        self._seconds, self._queries = seconds, queries
        self._foreign_limit, self._out = foreign_limit, out
        self._path = f"/classify?model={model}&top_k=5"
        self._numbers: dict[str, dict[int, Numbers]] = {}  # by run and round
        self._limits: dict[str, list[bool]] = {OURS: [], LOADGEN: []}
        self._disturbed: list[str] = []
        self._runs = 0
        self.result: results.Result = {
            "kind": "rulers",
            "complete": False,
            "ok": True,
            "disturbed": "",
            "model": model,
            "conditions": conditions.conditions(),
            "settings": {},
            "rows": [],
            "accuracy": "",
            "programs": [],
        }

    def run(self, rounds: int, settings: dict[str, Any]) -> None:
        """Run all programs in all rounds; raises TargetError, RulerError."""
        self.result["settings"] = settings
        with tempfile.TemporaryDirectory(prefix="rulers-") as folder, bar() as progress:
            files = []
            for number, image in enumerate(self._images):
                file = Path(folder, f"{number}.jpg")
                file.write_bytes(image.data)
                files.append(str(file))
            task = progress.add_task("calibrating", total=None)
            capacity, at_triton = loop.run(self._capacities())
            plan = self._plan(files, capacity, at_triton)
            progress.update(task, total=rounds * len(plan))
            for number in range(rounds):
                for name in list(plan)[:: 1 if number % 2 == 0 else -1]:
                    progress.update(task, description=f"round {number + 1}: {name}")
                    self._one(name, plan[name], number)
                    progress.advance(task)
                self._write(capacity, at_triton)
            if programs.loadgen_is_there():
                self.result["accuracy"] = self._accuracy(files)
        self.result["complete"] = True
        self._write(capacity, at_triton)

    def _one(self, name: str, run: Callable[[int], Numbers], number: int) -> None:
        """Run one program once; a disturbed run does not count."""
        watch = Watch(Watched(self._stack.servers))
        watch.begin()
        found = run(number)
        watch.end()
        self._runs += 1
        why = ""
        if self._stack.servers and watch.found is not None:
            why = watch.found.reason(limit=self._foreign_limit)
        if why:
            self._disturbed.append(f"{name}: {why}")
        else:
            self._numbers.setdefault(name, {})[number] = found

    async def _capacities(self) -> tuple[float, float]:
        """Images per second through the gateway and straight at Triton."""
        return (
            (await self._closed("gateway", AT_ONCE)).rate,
            (await self._closed("triton", AT_ONCE)).rate,
        )

    async def _target(self, way: str) -> tuple[Target, Callable[[], Any]]:
        http, triton = Http(self._stack.url), Triton(self._stack.triton)
        about = await http.about(self._model)

        async def close() -> None:
            http.close()
            await triton.close()

        if way == "gateway":
            return await GatewayTarget.prepare(http, self._model, self._images, about), close
        precision = answers.precision_of(about["provenance"])
        return await TritonTarget.prepare(triton, self._model, self._images, precision), close

    async def _closed(self, way: str, at_once: int) -> Window:
        target, close = await self._target(way)
        try:
            return await closed(target, at_once, WARM, self._seconds, _NoMeter())
        finally:
            await close()

    async def _together(self, seconds: float) -> Window:
        target, close = await self._target("gateway")
        try:
            return await closed(Together(target), 1, WARM, seconds, _NoMeter())
        finally:
            await close()

    async def _random(self, way: str, rate: float, seed: int) -> Window:
        target, close = await self._target(way)
        try:
            seconds = MORE_AT_RANDOM * self._queries / rate
            return await opened(target, poisson(rate, seed), WARM, seconds, _NoMeter())
        finally:
            await close()

    def _plan(
        self, files: list[str], capacity: float, at_triton: float
    ) -> dict[str, Callable[[int], Numbers]]:
        """The runs of each round, by name."""
        url, triton, seconds = self._stack.url, self._stack.triton, self._seconds
        rate, rate_at_triton = SHARE * capacity, SHARE * at_triton
        # Eight requests together may reach less than the capacity.
        streaming = MORE_TOGETHER * self._queries * AT_ONCE / capacity
        plan: dict[str, Callable[[int], Numbers]] = {
            "ours, 1": lambda _: numbers(loop.run(self._closed("gateway", 1))),
            "ours, 8": lambda _: numbers(loop.run(self._closed("gateway", AT_ONCE))),
            "ours, together": lambda _: numbers(loop.run(self._together(streaming))),
            "ours, random": lambda n: self._limited(loop.run(self._random("gateway", rate, n))),
        }
        if programs.loadgen_is_there():
            many = max(self._queries, round(capacity * seconds))

            def scenario(name: str, queries: int, connections: int) -> Callable[[int], Numbers]:
                task = Task(url, self._path, files, name, queries, connections, rate)

                def once(number: int) -> Numbers:
                    found = programs.loadgen(dataclasses.replace(task, seed=number))
                    if name == "Server":
                        self._limits[LOADGEN].append(found["result_validity"] == "VALID")
                    return programs.loadgen_numbers(found)

                return once

            plan |= {
                "LoadGen, 1": scenario("SingleStream", self._queries, 1),
                "LoadGen, 8": scenario("Offline", many, AT_ONCE),
                "LoadGen, together": scenario("MultiStream", self._queries, AT_ONCE),
                "LoadGen, random": scenario("Server", self._queries, CONNECTIONS),
            }
        else:
            note("MLPerf LoadGen is not installed: pip install mlcommons-loadgen")
        if wrk := programs.find("wrk"):
            plan |= {
                "wrk, 1": lambda _: programs.wrk(
                    wrk, url, self._path, files, at_once=1, seconds=seconds
                ),
                "wrk, 8": lambda _: programs.wrk(
                    wrk, url, self._path, files, at_once=AT_ONCE, seconds=seconds
                ),
            }
        else:
            note("there is no wrk: apt install wrk")
        if perf := programs.find("perf_analyzer"):
            of = (perf, triton, self._model)
            plan |= {
                "ours at Triton, 1": lambda _: numbers(loop.run(self._closed("triton", 1))),
                "perf, 1": lambda _: programs.perf_analyzer(*of, at_once=1, seconds=seconds),
                "ours at Triton, 8": lambda _: numbers(loop.run(self._closed("triton", AT_ONCE))),
                "perf, 8": lambda _: programs.perf_analyzer(*of, at_once=AT_ONCE, seconds=seconds),
                "ours at Triton, random": lambda n: numbers(
                    loop.run(self._random("triton", rate_at_triton, n))
                ),
                "perf, random": lambda _: programs.perf_analyzer(
                    *of, rate=rate_at_triton, seconds=self._queries / rate_at_triton
                ),
            }
        else:
            note("there is no perf_analyzer (its wheel needs glibc 2.38): Triton is not compared")
        return plan

    def _limited(self, window: Window) -> Numbers:
        limit = SERVER_LIMIT_NS / 1e6
        self._limits[OURS].append(keeps(window.milliseconds, limit))
        return numbers(window)

    def _accuracy(self, files: list[str]) -> str:
        """Check by LoadGen's accuracy mode that every answer names the recorded class."""
        task = Task(
            self._stack.url, self._path, files, "Offline", len(files), AT_ONCE, accuracy=True
        )
        found = programs.loadgen(task)["answers"]
        right = loop.run(self._recorded())
        same = sum(right[int(place)] == said for place, said in found.items())
        return (
            f"In LoadGen's accuracy mode {same} of {len(right)} answers name the class that was "
            "recorded for their image."
        )

    async def _recorded(self) -> list[int]:
        http = Http(self._stack.url)
        found = []
        for image in self._images:
            request = http.request(self._path, image.data, "application/octet-stream")
            found.append((await http.json(request))["predictions"][0]["index"])
        http.close()
        return found

    def _write(self, capacity: float, at_triton: float) -> None:
        rows = [
            row
            for each in rows_of(SHARE * capacity, SHARE * at_triton)
            if (row := compared(each, self._numbers)) is not None
        ]
        kept = "; ".join(
            f"{name} says so in {sum(found)} of {len(found)} runs"
            for name, found in self._limits.items()
            if found
        )
        self.result |= {
            "rows": rows,
            "ok": all(row["agree"] in {"yes", ""} for row in rows),
            "disturbed": (
                f"{len(self._disturbed)} of {self._runs} runs, such as {self._disturbed[-1]}"
                if len(self._disturbed) > self._runs / 2
                else ""
            ),
            "programs": [
                *(
                    f"{name}{about}"
                    for name, about in PROGRAMS.items()
                    if any(name in row["values"] for row in rows)
                ),
                f"MLPerf's limit for ResNet-50, p99 within {SERVER_LIMIT_NS / 1e6:.0f} ms, at "
                f"{SHARE * capacity:.0f} requests per second: {kept}.",
            ],
        }
        results.write(self._out, self.result)


PROGRAMS = {
    OURS: ": `loadtest/load/engine.py`, every answer checked.",
    LOADGEN: " (mlcommons-loadgen): SingleStream, Offline, MultiStream and Server as in "
    "ResNet-50's settings, but for so many queries as the conditions say instead of 600 s.",
    WRK: ": one thread, closed loop, no answer checked but its status.",
    PERF: ": gRPC, random pixels, Poisson arrivals; one window each.",
}


def numbers(window: Window) -> Numbers:
    """The numbers of a window that the other programs print too."""
    if window.errors:
        raise programs.RulerError(f"{OURS}: {window.errors[0]}")
    found = {"rate": window.rate}
    for level in (50, 90, 99):
        if (each := percentile(window.milliseconds, level)) is not None:
            found[f"p{level}"] = each.value
    return found
