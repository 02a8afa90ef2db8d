"""Tritons that serve one model each, one after the other: `python -m server.triton_alone`.

In: the folder of a model. Out: the Triton that serves it alone, while the context is open.

A Triton with many models is no place to measure one of them. Its launcher lets every model answer a
probe every two seconds. That takes cores from the model under load, the CPU time of the probes is
counted as the model's, and 24 models of some hundred milliseconds each keep two cores busy by their
probes alone. Here there is one model, and its launcher stands still (SIGSTOP) while the context is
open, so that nothing but the load reaches the model.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from loadtest.servers.launch import Server, free_port
from loadtest.servers.processes import GONE, TRITON
from loadtest.servers.stack import Stack

START_SECONDS = 180.0  # one model loads within seconds, on a busy machine within a minute


class Turns:
    """Tritons that take turns; each one ends while the next one loads its model."""

    def __init__(self) -> None:
        self._last: Server | None = None

    def __enter__(self) -> "Turns":
        return self

    def __exit__(self, *_: object) -> None:
        self._end_last()

    @contextlib.contextmanager
    def serving(self, folder: Path) -> Iterator[Stack]:
        """A Triton that serves the model in this folder alone; raises StackError."""
        with tempfile.TemporaryDirectory(prefix="loadtest-") as repository:
            Path(repository, folder.name).symlink_to(folder.resolve())
            status, grpc = free_port(), free_port()
            server = Server(
                (
                    *("server.triton_alone", "--repository", repository),
                    *("--status-port", str(status), "--grpc-port", str(grpc)),
                    *("--metrics-port", str(free_port()), "--http-port", str(free_port())),
                ),
                status,
                "/readyz",
            )
            server.launch()
            try:
                self._end_last()
                server.wait(START_SECONDS)
                with _standing_still(server.pid):
                    yield Stack("", f"127.0.0.1:{grpc}", {TRITON: server.pid})
            finally:
                server.terminate()
                self._last = server

    def _end_last(self) -> None:
        if self._last is not None:
            self._last.stop()
            self._last = None


@contextlib.contextmanager
def _standing_still(pid: int) -> Iterator[None]:
    """Stop one process, but not its descendants, while the context is open."""
    process = psutil.Process(pid)
    process.suspend()
    try:
        yield
    finally:
        with contextlib.suppress(*GONE):
            process.resume()
