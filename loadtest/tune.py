"""Searches a served model's engine, batching and threading for the most images per second in time.

In: a model of a repository and the allowed 99th percentile of the latency. Out: a result with every
trial, and the best settings written into the model's `config.pbtxt`. The search starts from the
present settings and changes one setting at a time. Each trial serves a copy of the model through
the whole path, under more and more requests at once, until the answers no longer come in time. An
engine whose answers are not the present engine's, by the gate of `engine_gate`, loses its trial.
Last, the best and the present settings take turns in new trials. The best settings are written only
if the gain is larger than the noise of these trials.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contracts.cpu import cpu_flags
from contracts.cpu_engines import ONNXRUNTIME, engines_for, state_engine, stated_engine
from contracts.model_config import (
    ConfigError,
    ModelConfig,
    comments,
    config_text,
    parameters,
    read_config,
)
from contracts.repository import CONFIG_NAME
from loadtest import results
from loadtest.compare.measure import Load, visit
from loadtest.engine_gate import EngineGate
from loadtest.load import loop
from loadtest.load.http import Http
from loadtest.load.http_target import GatewayTarget
from loadtest.load.sample_images import SampleImage
from loadtest.load.triton_target import Triton
from loadtest.machine import conditions
from loadtest.progress import bar
from loadtest.servers import stack
from loadtest.servers.launch import StackError
from loadtest.stats.ratios import LEAST_PAIRS, Ratio, paired

NOTE = "Tuned by `python -m loadtest tune`: "
THREADS = "intra_op_thread_count"  # the parameter that both ONNX Runtime backends read
SENT = 8  # images that are sent under load; all of them judge an engine
MUCH = 1.02  # the least gain of a change, so that noise does not decide


@dataclasses.dataclass(frozen=True)
class Knobs:
    """The settings that are tuned."""

    max_queue_delay_microseconds: int
    max_batch_size: int
    instances: int  # of the first instance group
    threads: int  # of one instance; 0: cores ÷ instances
    engine: str = ONNXRUNTIME  # of contracts.cpu_engines

    @classmethod
    def read(cls, config: ModelConfig) -> "Knobs":
        """Read the settings of a configuration; raises StackError if it does no batching."""
        scheduling = config.WhichOneof("scheduling_choice")
        if scheduling not in (None, "dynamic_batching"):
            raise StackError(f"config.pbtxt has {scheduling}, whose batches cannot be tuned")
        if config.max_batch_size < 1:
            raise StackError("config.pbtxt has max_batch_size 0, so there are no batches")
        groups, threads = config.instance_group, parameters(config).get(THREADS, "0")
        if not threads.isdecimal():
            raise StackError(f"config.pbtxt: {THREADS} is {threads!r}, expected a number")
        return cls(
            config.dynamic_batching.max_queue_delay_microseconds,
            config.max_batch_size,
            # A group that states no count has one instance.
            max(groups[0].count, 1) if groups else 1,
            int(threads),
            stated_engine(config),
        )

    def effective(self, cores: int) -> "Knobs":
        """The settings in effect on so many cores: 0 threads means cores ÷ instances."""
        return dataclasses.replace(self, threads=self.threads or max(1, cores // self.instances))

    def write(self, config: ModelConfig) -> None:
        """Write these values into `config`; a field that has its value already is not touched."""
        before = Knobs.read(config)
        if self.max_queue_delay_microseconds != before.max_queue_delay_microseconds:
            batching = config.dynamic_batching
            batching.max_queue_delay_microseconds = self.max_queue_delay_microseconds
        if self.max_batch_size != before.max_batch_size:
            config.max_batch_size = self.max_batch_size
        if self.instances != before.instances:
            group = config.instance_group[0] if config.instance_group else None
            (group or config.instance_group.add()).count = self.instances
        if self.engine != before.engine:
            state_engine(config, self.engine)
        if self.threads != before.threads:
            config.parameters[THREADS].string_value = str(self.threads)


def candidates(
    knobs: Knobs, cores: int, smallest_batch: int = 1, engines: Sequence[str] = ()
) -> dict[str, Sequence[Any]]:
    """The values to try for each setting, in this order; counts above the cores bring no gain.

    `smallest_batch` is the least `max_batch_size` that the rest of the configuration allows, and
    `engines` are those that can compute the model.
    """
    counts = sorted({1, 2, cores} & set(range(1, cores + 1)))
    batches = {1, 8, 32, knobs.max_batch_size}
    return {
        "engine": engines,
        "instances": counts,
        "threads": sorted({0, 1, cores}),
        "max_batch_size": sorted(size for size in batches if size >= smallest_batch),
        "max_queue_delay_microseconds": [0, 1000, 5000],
    }


def smallest_batch(config: ModelConfig) -> int:
    """The least `max_batch_size` with which Triton still takes the rest of the configuration."""
    warmup = (sample.batch_size for sample in config.model_warmup)
    least: int = max(1, *config.dynamic_batching.preferred_batch_size, *warmup)
    return least


def nearest_p99(milliseconds: list[float]) -> float | None:
    """The 99th percentile of exactly these samples, however few; None without samples.

    A trial is too short for an estimate that also holds for later requests, so the result states
    the measured value.
    """
    return float(np.percentile(milliseconds, 99)) if milliseconds else None


def gains(ratio: Ratio | None) -> bool:
    """Whether new ÷ old is above 1, beyond the noise of its pairs."""
    return ratio is not None and ratio.differs and ratio.value > 1


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
        dry_run: bool = False,
    ) -> None:
        self._folder = repository / model
        self._model, self._slo = model, slo_p99_ms
        self._images, self._seconds, self._out = sample_images, seconds, out
        self._concurrency = sorted(concurrency)
        self._knobs, self._dry_run = knobs, dry_run
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
            "engines": {},
            "confirmation": None,
            "winner": None,
        }

    def run(self) -> Knobs | None:
        """Search; returns the best settings, or None if none answer in time. Raises StackError."""
        path = self._folder / CONFIG_NAME
        if not path.is_file():
            raise StackError(f"{path}: no such file; export the model first")
        config = self._config()
        best = before = Knobs.read(config)
        engines = engines_for(config, cpu_flags())
        self._gate = EngineGate(config, self._images)
        every = candidates(before, conditions.cores(), smallest_batch(config), engines)
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
                    if rate(turned) > MUCH * rate(best):
                        best = turned
            if best != before and not self._confirmed(before, best):
                best = before
        served = self._trial(best) > 0
        self.result |= {"complete": True, "ok": served}
        if served:
            self.result["winner"] = dataclasses.asdict(best)
            if best != before and not self._dry_run:
                self._publish(best, before)
        results.write(self._out, self.result)
        return best if served else None

    def _confirmed(self, before: Knobs, best: Knobs) -> bool:
        """Whether `best` gains, beyond noise, in new trials in which both settings take turns."""
        if self._trial(before) == 0:
            return True  # the present settings do not answer in time at all
        pairs = []
        for turn in range(LEAST_PAIRS):
            order = (before, best) if turn % 2 else (best, before)
            rates = {knobs: self._serve(knobs, f"confirmation {turn + 1}") for knobs in order}
            pairs.append((rates[before], rates[best]))
        ratio = paired(pairs)
        self.result["confirmation"] = {"pairs": pairs, "ratio": ratio and dataclasses.asdict(ratio)}
        return gains(ratio)

    def _trial(self, knobs: Knobs) -> float:
        """Images per second within the allowed latency, 0 if none; nothing is measured twice."""
        key = knobs.effective(conditions.cores())
        if key not in self._tried:
            self._tried[key] = self._serve(knobs)
        return self._tried[key]

    def _serve(self, knobs: Knobs, about: str = "") -> float:
        """Do a new trial, also of settings that were tried; 0 if the servers do not start."""
        try:
            rate, p99, note = self._measured(knobs)
        except StackError as error:
            rate, p99, note = 0.0, None, f"did not start: {error}"
        self.result["engines"] = self._gate.findings()
        self.result["trials"].append({
            "knobs": dataclasses.asdict(knobs), "rate": rate, "p99_ms": p99,
            "note": ", ".join(filter(None, (about, note))),
        })  # fmt: skip
        results.write(self._out, self.result)
        return rate

    def _measured(self, knobs: Knobs) -> tuple[float, float | None, str]:
        """Images per second in time, their p99 in ms, and a note; raises StackError."""
        with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
            copy = Path(folder, self._model)
            shutil.copytree(self._folder, copy, ignore=shutil.ignore_patterns(CONFIG_NAME))
            config = self._config()
            knobs.write(config)
            (copy / CONFIG_NAME).write_text(config_text(config), encoding="utf-8")
            with stack.running([copy]) as running:
                return loop.run(self._measure(running, knobs))

    async def _measure(self, running: stack.Stack, knobs: Knobs) -> tuple[float, float | None, str]:
        http, triton = Http(running.url), Triton(running.triton)
        best: tuple[float, float | None, str] = (0.0, None, "never in time")
        try:
            if refusal := await self._gate.refusal(triton, self._model, knobs.engine):
                return 0.0, None, refusal
            about = await http.about(self._model)
            sent = self._images[:SENT]
            target = await GatewayTarget.prepare(http, self._model, sent, about)
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
                    servers=running.servers,
                )
                p99 = nearest_p99(found.milliseconds)
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

    def _engines(self) -> list[str]:
        """What each engine reached, where several were tried."""
        rates: dict[str, float] = {}
        for knobs, rate in self._tried.items():
            rates[knobs.engine] = max(rate, rates.get(knobs.engine, 0.0))
        lines = []
        for engine, rate in rates.items():
            found = self._gate.about(engine)
            reached = f"{rate:.1f} images/s in time" if rate else "none in time"
            if not self._gate.passes(engine):
                reached = "refused"
            lines.append(f"{engine}: {reached}{f'; {found}' if found else ''}.")
        return lines if len(lines) > 1 else []

    def _config(self) -> ModelConfig:
        """The model's own configuration, read from its file now; raises StackError."""
        try:
            return read_config(self._folder / CONFIG_NAME)
        except ConfigError as error:
            raise StackError(str(error)) from None

    def _publish(self, best: Knobs, before: Knobs) -> None:
        """Write the best settings and their measurement into the model's own configuration."""
        path = self._folder / CONFIG_NAME
        config, kept = self._config(), comments(path.read_text(encoding="utf-8"))
        best.write(config)
        note = (
            f"{NOTE}{self._trial(best):.1f} images/s with a p99 of at most {self._slo:g} ms, "
            f"before {self._trial(before):.1f}; {self.result['conditions']['cpu']}, "
            f"{self.result['conditions']['date']}."
        )
        kept = [line for line in kept if not line.startswith(NOTE)]
        notes = [note, *(NOTE + line for line in self._engines())]
        temporary = path.with_name(".config.pbtxt.new")
        temporary.write_text(config_text(config, [*notes, *kept]), encoding="utf-8")
        temporary.replace(path)
