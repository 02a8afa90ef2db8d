"""Searches the batching and threading of a served model for the most images per second in time.

In: a model of a repository and the 99th percentile of the latency that is allowed. Out: a result
with every trial, and the winner written into the model's `config.pbtxt`. One knob is turned at a
time, from the settings that are there; each trial serves a copy of the model, through the whole
path, under more and more requests at once, for as long as the answers come in time.
"""

import asyncio
import dataclasses
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from loadtest import results
from loadtest.compare.measure import Load, visit
from loadtest.load.http_target import GatewayTarget, Http
from loadtest.load.sample_images import SampleImage
from loadtest.load.triton_target import Triton
from loadtest.machine import conditions
from loadtest.progress import bar
from loadtest.servers import stack

NOTE = "# Tuned by `python -m loadtest tune`: "
MUCH = 1.02  # a change must gain so much, so that noise does not choose


@dataclasses.dataclass(frozen=True)
class Knobs:
    """What is tuned."""

    max_queue_delay_microseconds: int
    max_batch_size: int
    instances: int
    threads: int  # of one instance; 0: cores ÷ instances

    @classmethod
    def read(cls, config: str) -> "Knobs":
        """As a `config.pbtxt` of `python -m export` has them."""

        def number(pattern: str, default: int) -> int:
            found = re.search(pattern, config)
            return int(found[1]) if found else default

        return cls(
            number(r"max_queue_delay_microseconds\s*:\s*(\d+)", 0),
            number(r"max_batch_size\s*:\s*(\d+)", 1),
            number(r"instance_group\s*\[\s*\{[^}]*?count\s*:\s*(\d+)", 1),
            number(r'intra_op_thread_count"\s*value\s*\{\s*string_value\s*:\s*"(\d+)"', 0),
        )

    def write(self, config: str) -> str:
        """`config` with these values."""
        changes = (
            (r"dynamic_batching\s*\{[^}]*\}", f"dynamic_batching {self._batching()}"),
            (r"(?<=max_batch_size: )\d+", str(self.max_batch_size)),
            (r"(instance_group\s*\[\s*\{[^}]*?count\s*:\s*)\d+", rf"\g<1>{self.instances}"),
            (
                r'(intra_op_thread_count"\s*value\s*\{\s*string_value\s*:\s*")\d+',
                rf"\g<1>{self.threads}",
            ),
        )
        for pattern, new in changes:
            config, count = re.subn(pattern, new, config, count=1)
            if not count:
                raise stack.StackError(
                    f"config.pbtxt has nothing like {pattern!r}; export the model anew"
                )
        return config

    def _batching(self) -> str:
        delay = self.max_queue_delay_microseconds
        return f"{{ max_queue_delay_microseconds: {delay} }}" if delay else "{ }"


def candidates(knobs: Knobs, cores: int) -> dict[str, list[int]]:
    """What each knob is tried at, in this order; counts beyond the cores only cost."""
    counts = sorted({1, 2, cores} & set(range(1, cores + 1)))
    return {
        "instances": counts,
        "threads": sorted({0, 1, cores}),
        "max_batch_size": sorted({1, 8, 32, knobs.max_batch_size}),
        "max_queue_delay_microseconds": [0, 1000, 5000],
    }


class Tuning:
    """One search."""

    def __init__(
        self,
        repository: Path,
        model: str,
        slo_p99_ms: float,
        sample_images: list[SampleImage],
        *,
        seconds: float,
        concurrency: tuple[int, ...],
        knobs: tuple[str, ...],
        out: Path,
        settings: dict[str, Any],
    ) -> None:
        self._folder = repository / model
        self._model, self._slo = model, slo_p99_ms
        self._images, self._seconds, self._out = sample_images, seconds, out
        self._concurrency = sorted(concurrency)
        self._knobs = knobs
        self._tried: dict[Knobs, float] = {}
        self.result: results.Result = {
            "kind": "tune",
            "complete": False,
            "ok": True,
            "model": model,
            "slo_p99_ms": slo_p99_ms,
            "conditions": conditions.conditions(),
            "settings": settings,
            "trials": [],
            "winner": None,
        }

    def run(self) -> Knobs | None:
        """Search; the winner, or None when no setting answers in time. Raises StackError."""
        config = self._folder / "config.pbtxt"
        if not config.is_file():
            raise stack.StackError(f"{config}: no such file; export the model first")
        best = before = Knobs.read(config.read_text())
        every = candidates(before, stack.cores())
        choices = {knob: values for knob, values in every.items() if knob in self._knobs}
        with bar() as progress:
            task = progress.add_task("", total=1 + sum(len(values) for values in choices.values()))

            def rate(knobs: Knobs) -> float:
                about = ", ".join(f"{k} {v}" for k, v in dataclasses.asdict(knobs).items())
                progress.update(task, description=about)
                found = self._trial(knobs)
                progress.advance(task)
                return found

            rate(best)
            for knob, values in choices.items():
                for value in values:
                    turned = dataclasses.replace(best, **{knob: value})
                    if rate(turned) > MUCH * self._tried[best]:
                        best = turned
        self.result |= {"complete": True, "ok": self._tried[best] > 0}
        if self._tried[best] > 0:
            self.result["winner"] = dataclasses.asdict(best)
            self._publish(best, before)
        results.write(self._out, self.result)
        return best if self._tried[best] > 0 else None

    def _trial(self, knobs: Knobs) -> float:
        """Images per second within the allowed latency; 0 when none are."""
        if knobs in self._tried:
            return self._tried[knobs]
        with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
            copy = Path(folder, self._model)
            shutil.copytree(self._folder, copy, ignore=shutil.ignore_patterns("config.pbtxt"))
            config = (self._folder / "config.pbtxt").read_text()
            (copy / "config.pbtxt").write_text(knobs.write(config))
            with stack.running(Path(folder), [self._model]) as running:
                rate, p99, note = asyncio.run(self._measure(running, knobs))
        self._tried[knobs] = rate
        self.result["trials"].append({
            "knobs": dataclasses.asdict(knobs), "rate": rate, "p99_ms": p99, "note": note,
        })  # fmt: skip
        results.write(self._out, self.result)
        return rate

    async def _measure(self, running: stack.Stack, knobs: Knobs) -> tuple[float, float | None, str]:
        http, triton = Http(running.url), Triton(running.triton)
        best: tuple[float, float | None, str] = (0.0, None, "never in time")
        try:
            about = await http.json(http.request(f"/models/{self._model}"))
            target = await GatewayTarget.prepare(http, self._model, self._images, about)
            for concurrency in self._concurrency:
                found, _ = await visit(
                    target,
                    Load("gateway", concurrency),
                    model=self._model,
                    number=0,
                    warm=self._seconds / 4,
                    seconds=self._seconds,
                    triton=triton,
                    instances=knobs.instances,
                    pid=running.pid,
                )
                p99 = found.milliseconds.get("99")
                if found.failed:
                    return 0.0, p99, f"{found.failed} requests failed"
                if p99 is None or p99 > self._slo:
                    break
                if found.rate > best[0]:
                    best = (found.rate, p99, f"{concurrency} at once")
        finally:
            http.close()
            await triton.close()
        return best

    def _publish(self, best: Knobs, before: Knobs) -> None:
        """Write the winner, and what was measured, into the model's own configuration."""
        path = self._folder / "config.pbtxt"
        lines = path.read_text().splitlines(keepends=True)
        config = "".join(line for line in lines if not line.startswith(NOTE))
        note = (
            f"{NOTE}{self._tried[best]:.1f} images/s with a p99 of at most {self._slo:g} ms, "
            f"before {self._tried[before]:.1f}; {self.result['conditions']['cpu']}, "
            f"{self.result['conditions']['date']}.\n"
        )
        temporary = path.with_name(".config.pbtxt.new")
        temporary.write_text(note + best.write(config))
        temporary.replace(path)
