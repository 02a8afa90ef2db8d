"""The real stack on loopback for tests: Triton, gateways, and the fixtures that share them.

In: a model repository. Out: `running_triton` and `running_gateway`, started by the entry points
that users call, and session fixtures, which a room's conftest.py imports.
"""

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from server.local_triton.supervisor import LocalTriton
from tests import tiny_models
from tests.waiting import CHECKOUT, wait_for

DEFAULT_MODEL = "mixer_cifar10"
# For calls that are made again and again: by itself httpx reads the certificates of every authority
# for each client that it makes, 20 ms of CPU, and a gateway on loopback has none.
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextlib.contextmanager
def running_triton(
    repository: Path, grpc_port: int | None = None, triton: LocalTriton | None = None
) -> Iterator[LocalTriton]:
    """A supervised tritonserver that takes requests, supervised by a thread of this process."""
    triton = triton or LocalTriton(repository, grpc_port=grpc_port)
    loop = asyncio.new_event_loop()
    supervisor = loop.create_task(triton.run())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        # Programs may have to be compiled first.
        started = "a Triton that takes requests"
        wait_for(lambda: triton.pid or supervisor.done(), 300, started)
        if supervisor.done():
            supervisor.result()
        yield triton
    finally:
        asyncio.run_coroutine_threadsafe(triton.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass(frozen=True)
class Gateway:
    """A gateway process started by its entry point; `log` is what it prints."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid


@contextlib.contextmanager
def running_gateway(
    log: Path, *flags: str, ready: bool = True, environment: dict[str, str] | None = None
) -> Iterator[Gateway]:
    """`python -m server` on a free port; `ready`: only when its /readyz is 200, and each of its
    workers has the default model that the flags name."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "--port", "0", *flags],
            cwd=CHECKOUT,
            env=os.environ | (environment or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def address() -> str | None:
        assert process.poll() is None, f"the gateway ended: {log.read_text()}"
        # What follows the port shows that all of it has been written.
        found = re.search(r"listening on (https?://[\w.:]+)[^\w.:]", log.read_text())
        return found[1] if found else None

    try:
        gateway = Gateway(wait_for(address), process, log)
        if ready:
            wait_for(lambda: address() and status(f"{gateway.url}/readyz") == 200, what="readiness")
            given = dict(itertools.pairwise(flags))
            workers, found = int(given.get("--workers", "1")), given.get("--default-model")
            if workers > 1 and found:
                line = f"model {found} version"
                wait_for(lambda: log.read_text().count(line) >= workers, what="all workers")
        yield gateway
    finally:
        process.terminate()
        try:
            process.wait(90)  # it waits for calls to a Triton that does not answer, 60 s at most
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def running_stack(
    repository: Path, log: Path, default: str = DEFAULT_MODEL, *flags: str
) -> Iterator[tuple[LocalTriton, Gateway]]:
    """A Triton that serves `repository`, and a ready gateway before it."""
    with running_triton(repository) as triton:
        before = ("--triton-url", triton.grpc_url, "--default-model", default)
        with running_gateway(log, *before, *flags) as gateway:
            yield triton, gateway


def client_of(gateway: Gateway, patience: float = 30.0) -> httpx.Client:
    """A client of the gateway's paths, which waits so many seconds for an answer; close it."""
    return httpx.Client(
        base_url=gateway.url, trust_env=False, timeout=patience, verify=NO_AUTHORITIES
    )


def classify(
    gateway: Gateway,
    image: bytes,
    query: str = "",
    headers: Mapping[str, str] = MappingProxyType({"Content-Type": "image/jpeg"}),
) -> httpx.Response:
    """The answer to one image, on a connection of its own."""
    with client_of(gateway, 60.0) as client:
        return client.post(f"/classify{query}", content=image, headers=dict(headers))


class Asker(threading.Thread):
    """A client that asks again and again, on a connection that it keeps, until `enough` is set.

    One connection for each request would take thousands of ports, among them one that a server
    beside this test has just chosen.
    """

    def __init__(
        self,
        gateway: Gateway,
        image: bytes,
        enough: threading.Event,
        told: Callable[[httpx.Response, float], None],
        *,
        query: str = "",
        headers: Mapping[str, str] = MappingProxyType({"Content-Type": "image/jpeg"}),
        pause: float = 0.0,
    ) -> None:
        """`told` gets each answer, and the seconds that it took."""
        super().__init__()
        self._gateway, self._image, self._enough, self._told = gateway, image, enough, told
        self._query, self._headers, self._pause = query, dict(headers), pause

    def run(self) -> None:
        with client_of(self._gateway, 60.0) as client:
            while not self._enough.wait(self._pause):
                began = time.monotonic()
                response = client.post(
                    f"/classify{self._query}", content=self._image, headers=self._headers
                )
                self._told(response, time.monotonic() - began)


def check_same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """Hold that two lists of predictions say the same.

    The same image may share its batch with others, a probe among them; then the sums of a matrix
    product may be rounded in another order, and the last digit of the answer with them.
    """
    assert [(p["label"], p["index"]) for p in one] == [(p["label"], p["index"]) for p in other]
    right = pytest.approx([p["probability"] for p in other], abs=1e-6)
    assert [p["probability"] for p in one] == right


def status(url: str) -> int | None:
    """The HTTP status of a GET; None when nobody listens."""
    try:
        return httpx.get(url, trust_env=False, timeout=10, verify=NO_AUTHORITIES).status_code
    except httpx.TransportError:
        return None


@pytest.fixture(scope="session")
def model_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small models: the default, which is the shipped one, and `linear` with a queue delay."""
    repository = tmp_path_factory.mktemp("model_repository")
    shutil.copytree(CHECKOUT / "model_repository" / DEFAULT_MODEL, repository / DEFAULT_MODEL)
    tiny_models.publish(repository, "linear", queue_delay_us=50_000)
    return repository


@pytest.fixture(scope="session")
def triton(model_repository: Path) -> Iterator[LocalTriton]:
    """A Triton for every test that leaves it alive: `grpc_url`, `pid`."""
    with running_triton(model_repository) as running:
        yield running


@dataclass(frozen=True)
class Guarded:
    """A gateway of two workers that asks for a key and logs every request as JSON."""

    gateway: Gateway
    keys_file: Path
    key: str


@pytest.fixture(scope="session")
def guarded(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """That gateway, before the shared Triton."""
    folder = tmp_path_factory.mktemp("guarded")
    made = subprocess.run(
        [sys.executable, "-m", "server", "key", "alice"],
        cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (folder / "keys").write_text(made.stdout)
    flags = (
        *("--triton-url", triton.grpc_url, "--default-model", DEFAULT_MODEL),
        *("--keys-file", str(folder / "keys"), "--workers", "2", "--access-log"),
        *("--log-format", "json", "--cors-origins", "https://example.org"),
    )
    with running_gateway(folder / "log", *flags) as running:
        yield Guarded(running, folder / "keys", made.stderr.split()[-1])


@pytest.fixture(scope="session")
def gateway(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A ready gateway before that Triton: `url`, `pid`, `log`."""
    flags = ("--triton-url", triton.grpc_url, "--default-model", DEFAULT_MODEL)
    with running_gateway(tmp_path_factory.mktemp("gateway") / "log", *flags) as running:
        yield running
