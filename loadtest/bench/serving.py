"""What a request costs: the gateway with Triton, beside the plain way and beside no server at all.

`in_process` is the gateway with ONNX Runtime in its own process, without Triton. `mosec` is another
model server (`pip install mosec`), measured only where it is asked for.

In: nothing but a checkout with its environments. Out, for each case (model, image, requests under
way) and each contestant: images per second, latencies, and milliseconds of CPU per image, split
by process. Contestants take turns within each round, in the opposite order in the next; medians
over the rounds are printed. The load comes from this process, whose CPU is not counted.

    python -m loadtest bench serving              # everything: `make bench`, about 12 minutes
    python -m loadtest bench serving --cases tiny --concurrency 32 --contestants gateway yardstick
"""

import asyncio
import contextlib
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from loadtest import CHECKOUT
from loadtest.bench.inputs import prepare
from loadtest.bench.programs import run
from loadtest.load import loop
from loadtest.load.engine import under_way
from loadtest.load.forms import FORM_TYPE, form
from loadtest.load.http import Http
from loadtest.load.http_target import StatusTarget
from loadtest.load.sample_images import SampleImage
from loadtest.servers.launch import (
    PYTHON,
    Server,
    StackError,
    free_port,
    gateway,
    triton_address,
)
from loadtest.servers.processes import EVENT_LOOP, Watched
from loadtest.servers.stack import serving
from loadtest.stats.samples import good
from loadtest.usage import UsageError

BATCH = 16  # images in a request of the contestant "batch"
Contestant = Literal["gateway", "batch", "workers", "in_process", "yardstick", "mosec", "loop"]
CONTESTANTS: tuple[Contestant, ...] = (
    *("gateway", "batch", "workers"),
    *("in_process", "yardstick", "loop"),
)
WARM_SECONDS = 0.7


@dataclass(frozen=True)
class Case:
    """A model and the image that it classifies."""

    model: str
    image: str


CASES = {
    "tiny": Case("tiny", "32px"),
    "photo": Case("empty", "500px"),
    "camera": Case("empty", "12mp"),
}
# Cases that run only on request: what other image sizes cost the gateway (docs/scaling.md).
SIZES = {"thumbnail": Case("empty", "224px"), "screen": Case("empty", "1024px")}


@dataclass
class Result:
    """One contestant in one round of one case."""

    images_per_second: float
    p50: float  # milliseconds, of a request
    p99: float
    cpu: dict[str, float]  # milliseconds per image, by process
    failed: int = 0


class Bench:
    """The running servers, and how each contestant is measured."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds
        self._urls: dict[str, str] = {}
        self._watched: dict[str, Watched] = {}

    @contextlib.contextmanager
    def servers(
        self, contestants: tuple[Contestant, ...], models: tuple[str, ...]
    ) -> Iterator[None]:
        """Start what the contestants need, with these models alone; raises StackError."""
        with contextlib.ExitStack() as stack:
            repository = stack.enter_context(tempfile.TemporaryDirectory(prefix="loadtest-"))
            for model in models:
                Path(repository, model).symlink_to((self._folder / "models" / model).resolve())
            where = ("--repository", repository)

            def start(*flags: str) -> Server:
                flags = ("--default-model", models[0], "--log-format", "text", *flags)
                server = gateway(*flags, own_session=False)
                try:
                    stack.enter_context(serving(server, models))
                except StackError as error:
                    raise StackError(
                        f"{error}; the models are in {self._folder / 'models'}: without this "
                        "folder they are made anew"
                    ) from None
                return server

            if {"gateway", "batch", "workers"} & set(contestants):
                first = start("--with-triton", *where)
                for contestant in ("gateway", "batch"):
                    self._add(contestant, first, {"gateway": first.pid})
            if "workers" in contestants:
                workers = start("--workers", "2", "--triton-url", triton_address(first.pid))
                self._add("workers", workers, {"workers": workers.pid, "gateway": first.pid})
            if "in_process" in contestants:
                alone = start("--engine", "onnxruntime", *where)
                self._add("in_process", alone, {"gateway": alone.pid})
            if "yardstick" in contestants:
                port = free_port()
                arguments = ("loadtest.bench.yardstick", repository, "--port", str(port))
                plain = stack.enter_context(Server(arguments, port, "/docs", own_session=False))
                self._add("yardstick", plain, {"yardstick": plain.pid})
            if "mosec" in contestants:
                if importlib.util.find_spec("mosec") is None:
                    raise UsageError("contestant mosec: there is no mosec; pip install mosec")
                port = free_port()
                service = ("loadtest.bench.mosec_service", repository, str(port))
                other = stack.enter_context(Server(service, port, "/metrics", own_session=False))
                self._add("mosec", other, {"mosec": other.pid})
            yield

    def _add(self, contestant: str, server: Server, pids: dict[str, int]) -> None:
        self._urls[contestant] = server.url
        self._watched[contestant] = Watched(pids)

    async def measure(self, contestant: Contestant, case: Case, concurrency: int) -> Result:
        """One round of one contestant."""
        if contestant == "loop":
            return await self._loop(case)
        data = (self._folder / f"{case.image}.jpg").read_bytes()
        http = Http(self._urls[contestant])
        if contestant == "batch":
            body = form([SampleImage("", data)] * BATCH)
            request = http.request(f"/classify/batch?model={case.model}", body, FORM_TYPE)
            target = StatusTarget(http, [request], BATCH)
        else:
            path = "/classify/{}" if contestant == "mosec" else "/classify?model={}"
            request = http.request(path.format(case.model), data, "image/jpeg")
            target = StatusTarget(http, [request])
        watched = self._watched[contestant]
        watched.look()
        async with under_way(target, concurrency) as samples:
            await asyncio.sleep(WARM_SECONDS)
            before, began, first = watched.cpu_seconds(), time.perf_counter(), len(samples)
            await asyncio.sleep(self._seconds)
            last, ended, after = len(samples), time.perf_counter(), watched.cpu_seconds()
        target.close()
        inside = samples[first:last]
        took = [sample.seconds for sample in good(inside)]
        if not took:
            raise UsageError(
                f"{contestant} answered nothing in {ended - began:.1f} s; give more --seconds"
            )
        images = len(took) * target.images
        p50, p99 = 1000 * np.percentile(took, (50, 99))
        cpu = {
            role: 1000 * (after[role] - before[role]) / images
            for role in sorted(after)
            if role != EVENT_LOOP  # its time is in the gateway's time already
        }
        failed = len(inside) - len(took)
        return Result(images / (ended - began), float(p50), float(p99), cpu, failed)

    async def _loop(self, case: Case) -> Result:
        process = await asyncio.create_subprocess_exec(
            *(*PYTHON, "loadtest.bench.yardstick", self._folder / "models"),
            *("--loop", case.model, self._folder / f"{case.image}.jpg"),
            *("--seconds", str(self._seconds)),
            stdout=asyncio.subprocess.PIPE, cwd=CHECKOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        if process.returncode:
            raise StackError("loadtest.bench.yardstick --loop failed; what it has printed says why")
        images, seconds, cpu = map(float, output.split())
        each = 1000 * seconds / images
        return Result(images / seconds, each, each, {"loop": 1000 * cpu / images})


def median(results: list[Result]) -> Result:
    """The median of each figure over the rounds."""
    roles = {role for result in results for role in result.cpu}

    return Result(
        statistics.median(result.images_per_second for result in results),
        statistics.median(result.p50 for result in results),
        statistics.median(result.p99 for result in results),
        {role: statistics.median(r.cpu.get(role, 0) for r in results) for role in sorted(roles)},
        sum(result.failed for result in results),
    )


def line(contestant: str, result: Result) -> str:
    """A row of the table."""
    split = ", ".join(
        f"{role} {value:.3f}" for role, value in result.cpu.items() if value >= 0.0005
    )
    failed = f"  {result.failed} FAILED" if result.failed else ""
    return (
        f"  {contestant:10} {result.images_per_second:8.1f} images/s   p50 {result.p50:7.2f} ms  "
        f"p99 {result.p99:7.2f} ms   CPU {sum(result.cpu.values()):7.3f} ms: {split}{failed}"
    )


async def compare(
    bench: Bench,
    cases: dict[str, Case],
    contestants: tuple[Contestant, ...],
    concurrency: tuple[int, ...],
    rounds: int,
) -> list[dict[str, object]]:
    """Measure and print; returns the medians of each case and contestant."""
    report: list[dict[str, object]] = []
    for name, case in cases.items():
        for under in concurrency:
            found: dict[str, list[Result]] = {contestant: [] for contestant in contestants}
            for number in range(rounds):
                for contestant in contestants[:: -1 if number % 2 else 1]:
                    found[contestant].append(await bench.measure(contestant, case, under))
            print(f"{name}, {case.image}, {under} under way", flush=True)
            for who, results in found.items():
                result = median(results)
                print(line(who, result), flush=True)
                about = {"case": name, "concurrency": under, "contestant": who}
                report.append(about | asdict(result))
    return report


def main(
    *,
    folder: Path = Path(".bench"),
    models: tuple[str, ...] = ("mixer_s16",),
    cases: tuple[str, ...] = (),
    contestants: tuple[Contestant, ...] = CONTESTANTS,
    concurrency: tuple[int, ...] = (1, 8, 32),
    seconds: float = 3.0,
    rounds: int = 3,
    out: Path | None = None,
) -> int:
    """Measure and print; 1 if a request failed.

    Args:
        folder: Where the models and images are, or are made.
        models: Real ones, by variant of `python -m export --list`.
        cases: Of tiny, photo, camera and the models, which are the default, or thumbnail, screen.
        contestants: What is measured.
        concurrency: Requests under way.
        seconds: Of each measurement.
        rounds: How often each is measured; medians are printed.
        out: Write the medians to this file, as JSON.
    """
    every = CASES | {name: Case(name, "500px") for name in models}
    known = every | SIZES
    if unknown := set(cases) - set(known):
        raise UsageError(
            f"--cases {' '.join(sorted(unknown))}: expected some of {', '.join(known)}"
        )
    chosen = {name: known[name] for name in cases or every}
    served = tuple(dict.fromkeys(case.model for case in chosen.values()))
    prepare(folder, [name for name in models if name in served])
    bench = Bench(folder, seconds)
    with bench.servers(contestants, served):
        report = loop.run(compare(bench, chosen, contestants, concurrency, rounds))
    if out:
        out.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(row["failed"] for row in report) else 0


if __name__ == "__main__":
    sys.exit(run(main))
