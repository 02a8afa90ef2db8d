"""`python -m server.triton_alone` and the health check of its container, without a container."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.triton import health
from server.local_triton.stubs import children
from server.local_triton.supervisor import free_port
from tests.waiting import CHECKOUT, frozen, wait_for

HEALTH = CHECKOUT / "deploy/triton/health.py"


@dataclass(frozen=True)
class Alone:
    """A running `python -m server.triton_alone`."""

    process: subprocess.Popen[bytes]
    http_port: int

    def health(self) -> str:
        """What the health check has to say; "" if all is well."""
        command = (sys.executable, "-I", "-S", str(HEALTH), "--port", str(self.http_port))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (done.stderr == ""), done.stderr
        return done.stderr

    def stubs(self) -> list[int]:
        (tritonserver,) = children(self.process.pid)
        return children(tritonserver)


@pytest.fixture
def alone(model_repository: Path, tmp_path: Path) -> Iterator[Alone]:
    """One that serves; at the end it is told to stop, and has stopped well."""
    http = free_port()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "server.triton_alone", "--http-port", str(http)),
                *("--repository", str(model_repository), "--grpc-port", str(free_port())),
                *("--metrics-port", str(free_port())),
            ],
            cwd=CHECKOUT,
            stderr=log,
        )
    running = Alone(process, http)
    try:
        wait_for(lambda: not running.health(), what="a healthy Triton")
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
    assert process.returncode == 0


def test_a_model_that_hangs_is_told(alone: Alone) -> None:
    stubs = alone.stubs()
    with contextlib.ExitStack() as all_of_them:
        for stub in stubs:
            all_of_them.enter_context(frozen(stub))
        assert "does not answer" in alone.health()
        for stub in stubs:
            os.kill(stub, signal.SIGKILL)
    wait_for(lambda: not alone.health(), what="a healthy Triton")


def test_a_lost_process_makes_it_start_again(alone: Alone) -> None:
    stubs = alone.stubs()
    os.kill(stubs[0], signal.SIGKILL)
    wait_for(lambda: not alone.health() and not set(stubs) & set(alone.stubs()))


def test_nobody_listening_is_told() -> None:
    command = (sys.executable, str(HEALTH), "--port", str(free_port()))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Triton does not answer" in done.stderr


def test_it_says_why_it_cannot_serve(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "server.triton_alone", "--repository", str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert done.returncode == 1
    assert "holds no model" in done.stderr


def test_a_hanging_triton_is_ended_even_if_no_check_has_seen_it_well(
    alone: Alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But one that is not there yet is not: it is loading its models."""
    ended: list[bool] = []
    # What ends a container is tried on containers: tests/compose/test_stack.py.
    monkeypatch.setattr(health, "end_container", lambda: ended.append(True))
    monkeypatch.setattr(health, "STATE", tmp_path / "state")
    monkeypatch.setattr(health, "TIMEOUT_S", 0.5)

    def check(port: int) -> int:
        monkeypatch.setattr(sys, "argv", ["health.py", "--port", str(port), "--end-after", "2"])
        return health.main()

    absent = free_port()
    assert [check(absent), check(absent), check(absent)] == [1, 1, 1]
    assert not ended
    (tritonserver,) = children(alone.process.pid)
    with frozen(tritonserver):
        assert check(alone.http_port) == 1
        assert not ended
        assert check(alone.http_port) == 1
        assert ended
