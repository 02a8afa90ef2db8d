"""Starts the programs of this project, waits until they answer, and ends them.

In: a command line and the address at which the program will listen. Out: a running server that has
answered its health check with status 200. The output of the program is not interpreted; its last
lines are shown if the program ends too early.
"""

import asyncio
import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from loadtest import CHECKOUT
from loadtest.servers.processes import TRITONSERVER, named

START_SECONDS = 600.0  # large models load for minutes
STOP_SECONDS = 60.0
LOOK_SECONDS = 0.05
PYTHON = (sys.executable, "-m")


class StackError(RuntimeError):
    """A model could not be made, or a server could not be started.

    The message has the last lines of the program's output.
    """


class Server:
    """A program that serves HTTP on a port of this machine."""

    def __init__(
        self,
        arguments: Sequence[str],
        port: int,
        probe: str,
        *,
        folder: Path = CHECKOUT,
        own_session: bool = True,
    ) -> None:
        """`arguments` follow `python -m`; `probe` is the path that answers 200 when it is ready.

        If `own_session` is false, the server is in this program's session, as if both shared a
        terminal. Where the kernel shares the cores between sessions (autogroup, sched(7)), the
        server then competes with the other processes of this session.
        """
        self.arguments = arguments
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self._probe = probe
        self._folder = folder
        self._own_session = own_session
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._told = False  # to end

    @property
    def pid(self) -> int:
        """The id of the process that was started."""
        if self._process is None:
            raise StackError(f"{self}: has not been started")
        return self._process.pid

    def __str__(self) -> str:
        return f"python -m {' '.join(self.arguments[:1])}"

    def launch(self) -> None:
        """Start it and return at once."""
        self._told = False
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is ended
        self._process = subprocess.Popen(
            [*PYTHON, *self.arguments], cwd=self._folder, env=environment(),
            stdout=self._output, stderr=self._output, start_new_session=self._own_session,
        )  # fmt: skip

    def start(self, seconds: float = START_SECONDS) -> None:
        """Start it and wait until it is ready; raises StackError."""
        self.launch()
        self.wait(seconds)

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Wait until the path `probe` answers 200; raises StackError."""
        deadline = time.monotonic() + seconds
        while (answer := get(f"{self.url}{self._probe}"))[0] != 200:
            self.check()
            if time.monotonic() > deadline:
                said = last_words(answer[1].decode(errors="replace"))
                raise StackError(
                    f"{self}: not ready within {seconds:.0f} s: {self.last_words()}; "
                    f"its {self._probe} says: {said}"
                )
            time.sleep(LOOK_SECONDS)

    def check(self) -> None:
        """Raises StackError if the server has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise StackError(f"{self} ended: {self.last_words()}")

    def last_words(self) -> str:
        """The last lines of the server's output; available until `stop`."""
        if self._output is None:
            return last_words("")
        self._output.seek(0)
        return last_words(self._output.read().decode(errors="replace"))

    def terminate(self) -> None:
        """Tell it to end, once, and return at once; `stop` waits for its end."""
        if self._process is not None and not self._told:
            self._process.terminate()
            self._told = True

    def stop(self) -> int:
        """End the server, by SIGKILL if SIGTERM does not suffice; returns its exit status."""
        if self._process is None:
            return 0
        self.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        if self._output is not None:
            self._output.close()
            self._output = None
        return self._process.wait()

    def __enter__(self) -> "Server":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def gateway(
    *flags: str, port: int = 0, folder: Path = CHECKOUT, own_session: bool = True
) -> Server:
    """`python -m server` with these flags, on a free port if none is given."""
    port = port or free_port()
    arguments = ("server", "--port", str(port), *flags)
    return Server(arguments, port, "/readyz", folder=folder, own_session=own_session)


def triton_address(gateway_pid: int) -> str:
    """HOST:PORT of the gRPC of the Triton that this gateway has started; raises StackError."""
    for process in named(gateway_pid, TRITONSERVER):
        if found := re.search(r"--grpc-port[= ](\d+)", " ".join(process.cmdline())):
            return f"127.0.0.1:{found[1]}"
    raise StackError("the gateway has started no tritonserver with a --grpc-port")


def get(url: str, seconds: float = 10.0) -> tuple[int, bytes]:
    """Status and body of a GET; status 0 without an answer. No proxy of the environment is used."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=seconds)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", parts.path or "/")
        response = connection.getresponse()
        return response.status, response.read()
    return 0, b""


async def until(server: Server, path: str, status: int, seconds: float) -> float:
    """Seconds until a GET has this status; infinite where `seconds` end first."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if (await asyncio.to_thread(get, f"{server.url}{path}"))[0] == status:
            return time.monotonic() - began
        await asyncio.sleep(LOOK_SECONDS)
    return float("inf")


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def environment() -> dict[str, str]:
    """This process's environment without the gateway's settings.

    So a server has no other settings than those that the result states.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIXER_")}
    return kept | {"ORT_DISABLE_TELEMETRY": "1", "NO_COLOR": "1"}


def last_words(text: str) -> str:
    """The last lines of what a program has printed."""
    return " ".join(text.strip().splitlines()[-3:])[-600:] or "it said nothing"


@contextlib.contextmanager
def together(*servers: Server) -> Iterator[None]:
    """Start all servers at the same time; end them in the opposite order."""
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.launch()
        for server in servers:
            server.wait()
        yield
