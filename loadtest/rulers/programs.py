"""The independent programs: how each is found and started, and how its output is read.

In: what to measure. Out: numbers by name: "rate" per second, "p50", "p90" and "p99" in
milliseconds. Each program runs in a process of its own, and the caller waits for its end.
"""

import csv
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtest import CHECKOUT
from loadtest.rulers.loadgen import Task
from loadtest.servers.launch import environment, last_words

Numbers = dict[str, float]
PATIENCE_SECONDS = 300.0
# wrk calls this for every request; the last line is ours, to be read by `wrk`.
SCRIPT = """
local requests = {}
local turn = 0
function init(_)  -- called when the header Host is set
  wrk.headers["Content-Type"] = "application/octet-stream"
  for i, path in ipairs({PATHS}) do
    local file = assert(io.open(path, "rb"))
    requests[i] = wrk.format("POST", "TARGET", nil, file:read("*a"))
    file:close()
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
function done(summary, latency, _)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("NUMBERS %d %d %d %f %f %f\\n", summary.requests, summary.duration, failed,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
"""


class RulerError(RuntimeError):
    """A program failed; the message has the last lines of its output."""


def loadgen_is_there() -> bool:
    """Whether MLPerf LoadGen is installed."""
    code = "import mlperf_loadgen"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    return done.returncode == 0


def find(program: str) -> str | None:
    """The path of a program on the PATH."""
    return shutil.which(program)


def loadgen(task: Task) -> dict[str, Any]:
    """Run LoadGen and return its results; raises RulerError."""
    command = [sys.executable, "-m", "loadtest.rulers.loadgen", json.dumps(asdict(task))]
    found: dict[str, Any] = json.loads(_output(command).splitlines()[-1])
    if found["failed"]:
        raise RulerError(f"LoadGen, {task.scenario}: {found['failed']} requests failed")
    return found


def loadgen_numbers(found: dict[str, Any]) -> Numbers:
    """The numbers in LoadGen's results, whatever the scenario."""
    kind = (
        "per_query_latency"
        if "result_50.00_percentile_per_query_latency_ns" in found
        else "latency"
    )
    numbers = {
        f"p{level}": found[f"result_{level}.00_percentile_{kind}_ns"] / 1e6
        for level in (50, 90, 99)
    }
    for key in (
        "result_qps_without_loadgen_overhead",
        "result_samples_per_second",
        "result_completed_samples_per_sec",
    ):
        if key in found:
            numbers["rate"] = float(found[key])
    return numbers


def wrk(
    program: str, url: str, path: str, images: Sequence[str], *, at_once: int, seconds: float
) -> Numbers:
    """A closed loop by wrk; raises RulerError."""
    names = ", ".join(json.dumps(name) for name in images)
    script = SCRIPT.replace("{PATHS}", f"{{{names}}}").replace("TARGET", path)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = [
            *(program, "--threads", "1", "--connections", str(at_once)),
            *("--duration", f"{max(1, round(seconds))}s", "--script", file.name, url),
        ]
        output = _output(command)
    found = re.search(r"^NUMBERS (.+)$", output, re.MULTILINE)
    if found is None:
        raise RulerError(f"wrk: {last_words(output)}")
    requests, microseconds, failed, *percentiles = map(float, found[1].split())
    if failed:
        raise RulerError(f"wrk: {failed:.0f} requests failed")
    latencies = {
        name: value / 1e3 for name, value in zip(("p50", "p90", "p99"), percentiles, strict=True)
    }
    return {"rate": 1e6 * requests / microseconds, **latencies}


def perf_analyzer(
    program: str, triton: str, model: str, *, at_once: int = 0, rate: float = 0.0, seconds: float
) -> Numbers:
    """A closed loop, or requests at random times, straight at Triton; raises RulerError."""
    with tempfile.TemporaryDirectory(prefix="perf-") as folder:
        report = Path(folder, "report.csv")
        load = (
            ("--request-rate-range", f"{rate:g}", "--request-distribution", "poisson")
            if rate
            else ("--concurrency-range", str(at_once))
        )
        command = [
            *(program, "-m", model, "-u", triton, "-i", "grpc", "-b", "1", "--async", *load),
            # perf_analyzer needs three windows; whether they agree is judged over our rounds.
            *("--input-data", "random", "-p", str(round(1000 * seconds / 3)), "-r", "3"),
            *("-s", "999"),
            *("-f", str(report)),
        ]
        output = _output(command, status=None)
        if not report.is_file():
            raise RulerError(f"perf_analyzer: {last_words(output)}")
        with report.open() as file:
            row = next(csv.DictReader(file))
    return {
        "rate": float(row["Inferences/Second"]),
        **{f"p{level}": float(row[f"p{level} latency"]) / 1e3 for level in (50, 90, 99)},
    }


def _output(command: Sequence[str], status: int | None = 0) -> str:
    try:
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environment(), capture_output=True, text=True,
            check=False, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RulerError(f"{command[0]} did not end within {PATIENCE_SECONDS:.0f} s") from None
    if status is not None and done.returncode != status:
        raise RulerError(f"{Path(command[0]).name}: {last_words(done.stderr or done.stdout)}")
    return done.stdout + done.stderr
