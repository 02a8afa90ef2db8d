"""A gateway with a Triton of its own, started for a measurement, and models made for it.

In: a model repository and the names of models. Out: two addresses and a process id, until the
context is left. Everything is started by its command line, as a user would.
"""

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from loadtest import CHECKOUT

START_SECONDS = 600.0  # large models load for minutes
STOP_SECONDS = 60.0
SETTLE_SECONDS = 10.0  # in which a model that the gateway refuses may yet become ready


class StackError(RuntimeError):
    """A model could not be made or a server not be started; the message has its last words."""


@dataclasses.dataclass(frozen=True)
class Stack:
    """Where the servers are."""

    url: str  # of the gateway
    triton: str  # HOST:PORT of Triton's gRPC
    pid: int | None = None  # of the gateway, if it was started here


def export_missing(repository: Path, model: str) -> bool:
    """Publish a variant with random weights if there is no model of that name; whether it did.

    Raises StackError.
    """
    if (repository / model / "config.pbtxt").is_file():
        return False
    export("--model", model, "--name", model, "--repository", str(repository))
    return True


def export(*flags: str) -> None:
    """`python -m export` with these flags; raises StackError."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "export", *flags],
        cwd=CHECKOUT, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise StackError(f"python -m export {' '.join(flags)}: {last_words(done.stderr)}")


@contextlib.contextmanager
def running(repository: Path, models: Sequence[str], workers: int = 1) -> Iterator[Stack]:
    """A gateway and a Triton that serve just these models of the repository, and are ready.

    Raises StackError.
    """
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        chosen = Path(folder, "repository")
        chosen.mkdir()
        for model in models:
            (chosen / model).symlink_to((repository / model).resolve())
        log = Path(folder, "log")
        command = (
            *(sys.executable, "-m", "server", "--with-triton", "--port", "0"),
            *("--repository", str(chosen), "--default-model", models[0]),
            *("--workers", str(workers), "--log-format", "text"),
        )
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own program
                command, cwd=CHECKOUT, env=environment(), stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield _wait(process, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path) -> Stack:
    deadline, since = time.monotonic() + START_SECONDS, 0.0
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        if process.poll() is not None:
            raise StackError(f"python -m server ended: {last_words(text)}")
        url = re.search(r"listening on (http://[\w.:\[\]]+)", text)
        triton = re.search(r"Triton serves .* on ([\w.]+:\d+)", text)
        if url and triton and _ready(url[1]):
            return Stack(url[1], triton[1], process.pid)
        refused = re.search(r"model \S+ is unavailable: .+", text)
        since = since or (time.monotonic() if refused else 0.0)
        if refused and time.monotonic() > since + SETTLE_SECONDS:
            raise StackError(refused[0][:600])
        time.sleep(0.1)
    raise StackError(f"not ready within {START_SECONDS:.0f} s: {last_words(log.read_text())}")


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=10) as response:  # noqa: S310 - http
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def environment() -> dict[str, str]:
    """Ours, without settings of the gateway: the conditions of a result are those it states."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIXER_")}
    return kept | {"ORT_DISABLE_TELEMETRY": "1", "NO_COLOR": "1"}


def last_words(text: str) -> str:
    return " ".join(text.strip().splitlines()[-3:])[-600:] or "it said nothing"
