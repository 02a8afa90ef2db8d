"""Bare models, without any server: those of `export` in PyTorch and those of `reference` in JAX.

In: variants. Out: a result with the figures of both programs. Each program is run by its command
line.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

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
    until: float = math.inf,
) -> Path:
    """Measure all models; returns the result file, which is named for the precision if `out` is
    None.

    A program that still runs at `until`, a time of time.monotonic(), is ended. Raises StackError.
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
                found = _measure(room, flags, until)
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


def _measure(room: str, flags: list[str], until: float) -> results.Result:
    name = f"python -m {room} throughput"
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        out, words = Path(folder, "out.json"), Path(folder, "stderr")
        command = [sys.executable, "-m", room, "throughput", *flags, "--out", str(out)]
        with words.open("wb") as errors:
            status = _status(command, errors, until)
        if status is None:
            raise StackError(f"{name} did not end within its time: {_end_of(words)}")
        if status:
            raise StackError(f"{name}: {_end_of(words)}")
        found: results.Result = json.loads(out.read_text())
        return found


def _status(command: Sequence[str], errors: IO[bytes], until: float) -> int | None:
    """The exit status; None if the command was ended, with all that it started, at `until`."""
    # Not through a pipe, which a process that the command has left behind would hold open.
    process = subprocess.Popen(
        command, cwd=CHECKOUT, env=environment(), process_group=0,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
    )  # fmt: skip
    try:
        return process.wait(None if until == math.inf else max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None
    finally:  # at Ctrl-C as well, which reaches this process alone
        with contextlib.suppress(ProcessLookupError, PermissionError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end_of(file: Path) -> str:
    return last_words(file.read_text(errors="replace"))
