"""Bare models, without any server: those of `export` in PyTorch and those of `reference` in JAX.

In: variants. Out: a result with the figures of both programs. Each program is run by its command
line.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadtest import CHECKOUT, results
from loadtest.machine import conditions
from loadtest.machine.conditions import slug
from loadtest.progress import bar
from loadtest.servers.launch import StackError, environment, last_words
from loadtest.usage import results_folder

ROOMS = {"pytorch": "export", "jax": "reference"}


def run(
    models: Sequence[str],
    batch_sizes: Sequence[int],
    *,
    precision: str,
    compiled: bool,
    seconds: float,
    windows: int,
    out: Path | None,
    frameworks: Sequence[str] = tuple(ROOMS),
) -> Path:
    """Measure all models; returns the result file, which is named for the precision if `out` is
    None.

    Raises StackError.
    """
    result: results.Result = {
        "kind": "bare",
        "complete": False,
        "ok": True,
        "conditions": conditions.conditions(),
        "settings": {
            "batch_sizes": ", ".join(map(str, batch_sizes)),
            "windows": windows,
            "seconds_per_window": seconds,
        },
        "frameworks": {},
    }
    with bar() as progress:
        task = progress.add_task("", total=len(frameworks) * len(models))
        # Model by model, so that a stopped run keeps the results it has. The frameworks take turns,
        # so that a machine that becomes slower favours none of them.
        for model in models:
            for framework in frameworks:
                room = ROOMS[framework]
                progress.update(task, description=f"{framework}, {model}")
                flags = [
                    *("--models", model, "--batch-sizes", *map(str, batch_sizes)),
                    *("--precision", precision, "--windows", str(windows)),
                    *("--seconds", str(seconds)),
                ]
                if compiled and framework == "pytorch":
                    flags.append("--compile")
                found = _measure(room, flags)
                _add(result["frameworks"], framework, found)
                about = (slug(found["precision"]), *models)
                out = out or results_folder() / results.file_name("bare", *about)
                results.write(out, result)
                progress.advance(task)
    if out is None:
        raise StackError("no models were named")
    result["complete"] = True
    results.write(out, result)
    return out


def _add(frameworks: results.Result, framework: str, found: results.Result) -> None:
    if framework in frameworks:
        frameworks[framework]["results"] += found["results"]
    else:
        frameworks[framework] = found


def _measure(room: str, flags: list[str]) -> results.Result:
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        out = Path(folder, "out.json")
        command = [sys.executable, "-m", room, "throughput", *flags, "--out", str(out)]
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise StackError(f"python -m {room} throughput: {last_words(done.stderr)}")
        found: results.Result = json.loads(out.read_text())
        return found
