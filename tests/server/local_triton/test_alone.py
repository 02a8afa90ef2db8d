"""`python -m server.triton_alone` and the health check of its container, without a container."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deploy.triton import health
from server.local_triton.stubs import children
from server.local_triton.supervisor import free_port
from tests.stack import status
from tests.waiting import CHECKOUT, frozen, terminated, wait_for

HEALTH = CHECKOUT / "deploy/triton/health.py"


@dataclass(frozen=True)
class Alone:
    """A running `python -m server.triton_alone`."""

    process: subprocess.Popen[bytes]
    status_port: int
    http_port: int

    def health(self) -> str:
        """What the health check has to say; "" if all is well."""
        return health_of(self.status_port)

    def stubs(self) -> list[int]:
        """None while tritonserver is away."""
        return [stub for server in children(self.process.pid) for stub in children(server)]

    def metric(self, line: str) -> bool:
        url = f"http://127.0.0.1:{self.status_port}/metrics"
        return f"{line}\n" in httpx.get(url, trust_env=False).text


def health_of(port: int) -> str:
    # As the container does: no package of anybody's, none of the caller's settings.
    command = (sys.executable, "-I", "-S", str(HEALTH), "--port", str(port))
    proxy = {"http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | proxy
    )
    assert (done.returncode == 0) == (done.stderr == ""), done.stderr
    return done.stderr


@pytest.fixture
def alone(model_repository: Path, tmp_path: Path) -> Iterator[Alone]:
    """One that serves; at the end it is told to stop, and has stopped well."""
    ports = {name: free_port() for name in ("http", "grpc", "metrics", "status")}
    flags = [part for name, port in ports.items() for part in (f"--{name}-port", str(port))]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "server.triton_alone", *flags),
                *("--repository", str(model_repository)),
            ],
            cwd=CHECKOUT,
            stderr=log,
        )
    running = Alone(process, ports["status"], ports["http"])
    with terminated(process):
        wait_for(lambda: not running.health(), what="a healthy Triton")
        yield running


def test_a_model_that_hangs_is_reported_and_restarted(alone: Alone) -> None:
    stubs = alone.stubs()
    with contextlib.ExitStack() as all_of_them:
        for stub in stubs:
            all_of_them.enter_context(frozen(stub))
        told = wait_for(alone.health, 15, "an unhealthy Triton")
        assert "not" in told  # answered, loaded or ready, as far as it has come
        wait_for(lambda: not alone.health(), 15, "a healthy Triton")
    assert not set(stubs) & set(alone.stubs())
    assert alone.metric('mixer_triton_restarts_total{reason="hung"} 1')


def test_a_lost_process_makes_it_start_again(alone: Alone) -> None:
    stubs = set(alone.stubs())
    os.kill(min(stubs), signal.SIGKILL)
    wait_for(lambda: not alone.health() and (now := set(alone.stubs())) and not stubs & now)
    assert alone.metric('mixer_triton_restarts_total{reason="died"} 1')


def test_its_http_is_open_on_loopback(alone: Alone) -> None:
    """The flag has always meant that; --with-triton has an HTTP of its own, which is closed."""
    ready = f"http://127.0.0.1:{alone.http_port}/v2/models/linear/ready"
    assert status(ready) == 200
    closed = f"http://127.0.0.1:{alone.http_port}/v2/systemsharedmemory/status"
    assert status(closed) == 403


def test_nobody_listening_is_reported() -> None:
    assert "the supervisor of Triton does not answer" in health_of(free_port())


def test_it_says_why_it_cannot_serve(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "server.triton_alone", "--repository", str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert done.returncode == 1
    assert "holds no model" in done.stderr


def test_it_says_that_its_status_port_is_taken(alone: Alone, model_repository: Path) -> None:
    flags = ("--repository", str(model_repository), "--status-port", str(alone.status_port))
    ports = [part for name in ("grpc", "metrics", "http") for part in (f"--{name}-port", "0")]
    done = subprocess.run(
        (sys.executable, "-m", "server.triton_alone", *flags, *ports),
        capture_output=True, text=True, check=False, cwd=CHECKOUT,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "cannot listen on" in line]
    assert f"127.0.0.1:{alone.status_port}" in json.loads(line)["message"]


def test_a_supervisor_that_hangs_has_its_container_ended(
    alone: Alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But a Triton that is away does not: its supervisor sees to it."""
    ended: list[bool] = []
    # What ends a container is tried on containers: tests/compose/test_stack.py.
    monkeypatch.setattr(health, "end_container", lambda: ended.append(True))
    monkeypatch.setattr(health, "STATE", tmp_path / "state")

    def check(port: int) -> int:
        monkeypatch.setattr(sys, "argv", ["health.py", "--port", str(port), "--end-after", "2"])
        return health.main()

    absent = free_port()
    assert [check(absent), check(absent), check(absent)] == [1, 1, 1]
    (tritonserver,) = children(alone.process.pid)
    os.kill(tritonserver, signal.SIGKILL)
    wait_for(lambda: check(alone.status_port) == 1, what="an unhealthy Triton")
    assert check(alone.status_port) == 1
    assert not ended
    wait_for(lambda: check(alone.status_port) == 0, what="a healthy Triton")
    # Only now: a busy machine must have its time for the answers above.
    monkeypatch.setattr(health, "TIMEOUT_S", 0.5)
    with frozen(alone.process.pid):
        assert check(alone.status_port) == 1
        assert not ended
        assert check(alone.status_port) == 1
        assert ended
