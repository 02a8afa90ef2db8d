"""What a request costs: the gateway with Triton, beside the plain way and beside no server at all.

In: nothing but a checkout with its environments. Out, for each case (model, image, requests under
way) and each contestant: images per second, latencies, and milliseconds of CPU per image, split
by process. Contestants take turns within each round, in the opposite order in the next; medians
over the rounds are printed. The load comes from this process, whose CPU is not counted.

    python -m loadtest.bench.serving              # everything: `make bench`, about 12 minutes
    python -m loadtest.bench.serving --cases tiny --concurrency 32 --contestants gateway yardstick
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import uvloop

from loadtest.bench.inputs import prepare
from loadtest.bench.load import Load, form, single
from loadtest.bench.processes import Program, running

BATCH = 16  # images in a request of the contestant "batch"
CONTESTANTS = ("gateway", "batch", "workers", "yardstick", "loop")
WARM_SECONDS = 0.7


@dataclass(frozen=True)
class Case:
    """A model and the image it is asked about."""

    model: str
    picture: str


CASES = {
    "tiny": Case("tiny", "32px"),
    "photo": Case("empty", "500px"),
    "camera": Case("empty", "12mp"),
}
# Measured where they are asked for: what other sizes cost the gateway (docs/scaling.md).
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
        self.folder = folder
        self.seconds = seconds
        self.urls: dict[str, str] = {}
        self.programs: dict[str, list[Program]] = {}

    @contextlib.asynccontextmanager
    async def servers(self, contestants: list[str], logs: Path) -> AsyncIterator[None]:
        """Start what the contestants need; `logs` is a folder for what it prints."""
        models = str(self.folder / "models")
        flags = ("server", "--port", "0", "--default-model", "tiny")
        async with contextlib.AsyncExitStack() as stack:
            if {"gateway", "batch", "workers"} & set(contestants):
                gateway = await stack.enter_async_context(
                    running(
                        "gateway", logs / "gateway", *flags, "--with-triton", "--repository", models
                    )
                )
                triton = await gateway.says(r"on (127\.0\.0\.1:\d+), started")
                self.urls["gateway"] = self.urls["batch"] = await gateway.address("/readyz")
                self.programs["gateway"] = self.programs["batch"] = [gateway]
            if "workers" in contestants:
                workers = await stack.enter_async_context(
                    running(
                        "workers",
                        logs / "workers",
                        *flags,
                        "--workers",
                        "2",
                        "--triton-url",
                        triton,
                    )
                )
                self.urls["workers"] = await workers.address("/readyz")
                self.programs["workers"] = [workers, gateway]
            if "yardstick" in contestants:
                yardstick = await stack.enter_async_context(
                    running("yardstick", logs / "yardstick", "loadtest.bench.yardstick", models)
                )
                self.urls["yardstick"] = await yardstick.address("/docs")
                self.programs["yardstick"] = [yardstick]
            yield

    async def measure(self, contestant: str, case: Case, concurrency: int) -> Result:
        """One round of one contestant."""
        if contestant == "loop":
            return await self._loop(case)
        data = (self.folder / f"{case.picture}.jpg").read_bytes()
        per_request = BATCH if contestant == "batch" else 1
        request = (
            form(f"/classify/batch?model={case.model}", [data] * BATCH)
            if contestant == "batch"
            else single(f"/classify?model={case.model}", data)
        )
        async with Load(self.urls[contestant], [request], concurrency) as load:
            await asyncio.sleep(WARM_SECONDS)
            load.begin()
            before = self._cpu(contestant)
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(self.seconds)
            seconds = asyncio.get_running_loop().time() - began
            after = self._cpu(contestant)
            took, failed = load.answers.seconds.copy(), load.answers.failed
        if not took:
            sys.exit(f"{contestant} answered nothing in {seconds:.1f} s; give it more --seconds")
        images = len(took) * per_request
        p50, p99 = 1000 * np.percentile(took, (50, 99))
        cpu = {role: 1000 * (after[role] - before[role]) / images for role in sorted(after)}
        return Result(images / seconds, float(p50), float(p99), cpu, failed)

    def _cpu(self, contestant: str) -> dict[str, float]:
        total: dict[str, float] = {}
        for program in self.programs[contestant]:
            total |= program.cpu()
        return total

    async def _loop(self, case: Case) -> Result:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "loadtest.bench.yardstick",
                self.folder / "models",
                "--loop",
                case.model,
            ),
            *(self.folder / f"{case.picture}.jpg", "--seconds", str(self.seconds)),
            stdout=subprocess.PIPE,
        )
        images, seconds, cpu = map(float, (await process.communicate())[0].split())
        each = 1000 * seconds / images
        return Result(images / seconds, each, each, {"loop": 1000 * cpu / images})


def median(results: list[Result]) -> Result:
    """Of each number its median."""
    roles = {role for result in results for role in result.cpu}

    def middle(numbers: Iterable[float]) -> float:
        return statistics.median(list(numbers))

    return Result(
        middle(result.images_per_second for result in results),
        middle(result.p50 for result in results),
        middle(result.p99 for result in results),
        {role: middle(r.cpu.get(role, 0) for r in results) for role in sorted(roles)},
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


async def compare(options: argparse.Namespace) -> int:
    """Measure and print; the exit status."""
    bench = Bench(options.folder, options.seconds)
    cases = CASES | {name: Case(name, "500px") for name in options.models}
    known = cases | SIZES
    if unknown := set(options.cases or ()) - set(known):
        sys.exit(f"--cases {' '.join(sorted(unknown))}: expected some of {', '.join(known)}")
    report = []
    failed = 0
    with tempfile.TemporaryDirectory() as logs:
        async with bench.servers(options.contestants, Path(logs)):
            for name in options.cases or cases:
                for concurrency in options.concurrency:
                    rounds: dict[str, list[Result]] = {c: [] for c in options.contestants}
                    for number in range(options.rounds):
                        for contestant in options.contestants[:: -1 if number % 2 else 1]:
                            rounds[contestant].append(
                                await bench.measure(contestant, known[name], concurrency)
                            )
                    print(f"{name}, {known[name].picture}, {concurrency} under way", flush=True)
                    for contestant, results in rounds.items():
                        result = median(results)
                        failed += result.failed
                        print(line(contestant, result), flush=True)
                        report.append(
                            {"case": name, "concurrency": concurrency, "contestant": contestant}
                            | asdict(result)
                        )
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if failed else 0


def main() -> int:
    """Read the command line, prepare, measure; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.serving", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="models and images")
    parser.add_argument("--models", nargs="*", default=["mixer_s16"], help="real ones, by variant")
    parser.add_argument(
        "--cases",
        nargs="*",
        help=f"of {', '.join(CASES)} and the models, which are the default, or {', '.join(SIZES)}",
    )
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the medians as JSON")
    options = parser.parse_args()
    prepare(options.folder, options.models)
    return uvloop.run(compare(options))


if __name__ == "__main__":
    sys.exit(main())
