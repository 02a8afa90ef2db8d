"""A gateway with a Triton of its own, started for a measurement, and models made for it.

In: a model repository and the names of models. Out: two addresses and the servers' processes, while
the context is open. Each program is started by its command line, as a user starts it.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from contracts.repository import CONFIG_NAME
from contracts.variants import VARIANTS
from loadtest import CHECKOUT
from loadtest.servers.launch import (
    LOOK_SECONDS,
    PYTHON,
    START_SECONDS,
    Server,
    StackError,
    environment,
    gateway,
    get,
    last_words,
    triton_address,
)
from loadtest.servers.processes import GATEWAY, TRITON, listening, tree

LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
SETTLE_SECONDS = 10.0  # how long a model that the gateway refuses may take to become ready


@dataclasses.dataclass(frozen=True)
class Stack:
    """The addresses and the processes of the servers."""

    url: str  # of the gateway
    triton: str  # HOST:PORT of Triton's gRPC
    # Process ids by role, for the servers on this machine.
    servers: Mapping[str, int] = dataclasses.field(default_factory=dict)


def find_or_export(repository: Path, made: Path, model: str) -> tuple[Path, bool]:
    """The folder of a model: the repository's, or one with random weights in the folder `made`.

    Returns also whether the weights are random. Raises StackError.
    """
    if (repository / model / CONFIG_NAME).is_file():
        return repository / model, False
    if not (made / model / CONFIG_NAME).is_file():
        if model not in VARIANTS:
            there = sorted(each.parent.name for each in repository.glob(f"*/{CONFIG_NAME}"))
            models = ", ".join(there) or "which has none"
            raise StackError(
                f"{model} is neither a model of {repository} ({models}) "
                "nor a variant, which `python -m export --list` lists"
            )
        export("--model", model, "--name", model, "--repository", str(made))
    return made / model, True


def export(*flags: str) -> None:
    """`python -m export` with these flags; raises StackError."""
    done = subprocess.run(
        [*PYTHON, "export", *flags],
        cwd=CHECKOUT, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise StackError(f"python -m export {' '.join(flags)}: {last_words(done.stderr)}")


def servers_of(url: str, triton: str) -> dict[str, int]:
    """Process ids, by role, of servers that were not started here; none if one is not visible.

    A server is not visible if it runs on another machine, or in a container, whose port is held by
    a proxy.
    """
    found = {}
    for role, address in ((GATEWAY, url.removeprefix("http://")), (TRITON, triton)):
        host, _, port = address.rstrip("/").rpartition(":")
        pid = listening(int(port)) if host in LOOPBACK and port.isdecimal() else 0
        # A process that has started this program is no server.
        if not pid or any(process.pid == os.getpid() for process in tree(pid)):
            return {}
        found[role] = pid
    return found


@contextlib.contextmanager
def running(folders: Sequence[Path], workers: int = 1) -> Iterator[Stack]:
    """A gateway and a Triton that are ready and serve the models in these folders alone.

    Raises StackError.
    """
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        models = [each.name for each in folders]
        for each in folders:
            Path(folder, each.name).symlink_to(each.resolve())
        flags = ("--with-triton", "--repository", folder, "--default-model", models[0])
        server = gateway(*flags, "--workers", str(workers), "--log-format", "text")
        with serving(server, models):
            yield Stack(server.url, triton_address(server.pid), {GATEWAY: server.pid})


@contextlib.contextmanager
def serving(server: Server, models: Sequence[str]) -> Iterator[None]:
    """Start a gateway; enter when it is ready and serves all models. Raises StackError."""
    try:
        server.launch()
        wait_for_models(server, models)
        yield
    finally:
        server.stop()


def wait_for_models(server: Server, models: Sequence[str]) -> None:
    """Wait until the gateway is ready and serves all models; raises StackError."""
    deadline, refused_since = time.monotonic() + START_SECONDS, 0.0
    while time.monotonic() < deadline:
        server.check()
        ready = get(f"{server.url}/readyz")[0] == 200
        states = {model: _state(f"{server.url}/models/{model}") for model in models}
        refused = {model: why for model, why in states.items() if why}
        if ready and not any(why is None for why in states.values()) and not refused:
            return
        refused_since = refused_since if refused else 0.0
        for model, why in refused.items():
            refused_since = refused_since or time.monotonic()
            if time.monotonic() > refused_since + SETTLE_SECONDS:
                raise StackError(f"model {model} is unavailable: {why}: {server.last_words()}")
        time.sleep(LOOK_SECONDS)
    raise StackError(f"not ready within {START_SECONDS:.0f} s: {server.last_words()}")


def _state(url: str) -> str | None:
    """Why the gateway refuses a model: "" if it serves the model, None if this is not known yet."""
    status, body = get(url)
    try:
        document = json.loads(body) if body else {}
    except ValueError:
        return None
    match status, document:
        case 200, {"state": "unavailable", "reason": str(reason)}:
            return reason
        case 200, _:
            return ""
        case 404, {"detail": str(detail)}:
            return detail
    return None
