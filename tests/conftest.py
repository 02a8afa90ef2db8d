"""What the tests share: a model repository, a real Triton, a real gateway, images, patience."""

import asyncio
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import httpx
import numpy as np
import pytest
from PIL import Image

from server.local_triton.supervisor import LocalTriton
from tests import tiny_models

CHECKOUT = Path(__file__).resolve().parent.parent
DEFAULT_MODEL = "mixer_tiny"
T = TypeVar("T")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where NO_SKIPS is set (in CI) a skipped test has failed: what it needs should be there."""
    report = yield
    if report.skipped and os.environ.get("NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which NO_SKIPS forbids: {report.longrepr}"
    return report


def wait_for(condition: Callable[[], T | None], seconds: float = 60.0, what: str = "") -> T:
    """Poll until `condition` gives something true, and return that; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what or condition}"
        time.sleep(0.02)
    return result


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process stands still; if it is ended meanwhile, well and good."""
    os.kill(pid, signal.SIGSTOP)
    try:
        # Its other threads go on until each of them has seen the signal.
        wait_for(lambda: all(map(stands_still, Path(f"/proc/{pid}/task").glob("*/stat"))))
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def stands_still(thread: Path) -> bool:
    """Whether that is stopped; the path is its `stat` in /proc."""
    try:
        return thread.read_text().rpartition(") ")[2][0] == "T"
    except OSError:
        return True  # it has ended


def photo(seed: int, width: int = 500, height: int = 375, kind: str = "JPEG") -> bytes:
    """An encoded image of smooth colours with grain, other for each seed."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = random.uniform(1, 6, (3, 2)), random.uniform(0, 6, 3)
    colours = [np.sin(a * x + b * y + c) for (a, b), c in zip(*waves, strict=True)]
    pixels = 127.5 + 100 * np.stack(colours, axis=-1) + random.normal(0, 5, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, kind)
    return file.getvalue()


@contextlib.contextmanager
def running_triton(repository: Path, grpc_port: int | None = None) -> Iterator[LocalTriton]:
    """A supervised tritonserver that takes requests, supervised by a thread of this process."""
    triton = LocalTriton(repository, grpc_port=grpc_port)
    loop = asyncio.new_event_loop()
    supervisor = loop.create_task(triton.run())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        wait_for(lambda: triton.pid or supervisor.done(), what="a Triton that takes requests")
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
    """`python -m server` on a free port; `ready`: only when its /readyz is 200."""
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
        found = re.search(r"listening on (http://[\w.:]+)", log.read_text())
        return found[1] if found else None

    try:
        gateway = Gateway(wait_for(address), process, log)
        if ready:
            wait_for(lambda: status(f"{gateway.url}/readyz") == 200, what="a ready gateway")
        yield gateway
    finally:
        process.terminate()
        try:
            process.wait(90)  # it waits for calls to a Triton that does not answer, 60 s at most
        finally:
            process.kill()
            process.wait()


def check_same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """Hold that two lists of predictions say the same.

    The same image may share its batch with others, a canary among them; then the sums of a matrix
    product may be rounded in another order, and the last digit of the answer with them.
    """
    assert [(p["label"], p["index"]) for p in one] == [(p["label"], p["index"]) for p in other]
    right = pytest.approx([p["probability"] for p in other], abs=1e-6)
    assert [p["probability"] for p in one] == right


def status(url: str) -> int | None:
    """The HTTP status of a GET; None when nobody listens."""
    try:
        return httpx.get(url, trust_env=False, timeout=10).status_code
    except httpx.TransportError:
        return None


@pytest.fixture(scope="session")
def model_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small models: the default, published by `export`, and `linear` with a queue delay."""
    repository = tmp_path_factory.mktemp("model_repository")
    checkpoint = CHECKOUT / f"tests/golden/{DEFAULT_MODEL}/checkpoint.npz"
    flags = ("--checkpoint", checkpoint, "--name", DEFAULT_MODEL, "--repository", repository)
    subprocess.run([sys.executable, "-m", "export", *flags], cwd=CHECKOUT, check=True)
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
        ready = f"model {DEFAULT_MODEL} version"
        wait_for(lambda: running.log.read_text().count(ready) >= 2, what="both of its workers")
        yield Guarded(running, folder / "keys", made.stderr.split()[-1])


@pytest.fixture(scope="session")
def gateway(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A ready gateway before that Triton: `url`, `pid`, `log`."""
    flags = ("--triton-url", triton.grpc_url, "--default-model", DEFAULT_MODEL)
    with running_gateway(tmp_path_factory.mktemp("gateway") / "log", *flags) as running:
        yield running
