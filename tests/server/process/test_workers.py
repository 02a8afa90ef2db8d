"""`--workers`: how they end, with their parent and without it."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.local_triton.stubs import children
from server.local_triton.supervisor import LocalTriton
from tests.photos import photo
from tests.stack import (
    DEFAULT_MODEL,
    Gateway,
    classify,
    client_of,
    running_gateway,
    status,
)
from tests.waiting import wait_for


def workers_of(pid: int) -> set[int]:
    """The worker processes under `pid`."""
    found = set()
    for child in children(pid):
        with contextlib.suppress(FileNotFoundError):  # ended meanwhile
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.add(child)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_finish_and_leave_with_their_parent(
    number: signal.Signals, triton: LocalTriton, tmp_path: Path
) -> None:
    flags = (
        *("--triton-url", triton.grpc_url, "--default-model", DEFAULT_MODEL),
        # A machine that stands still for two seconds must not miss the time in which it drains.
        *("--workers", "2", "--drain-seconds", "6"),
    )
    environment = {"TMPDIR": str(tmp_path)}
    with (
        ThreadPoolExecutor(4) as threads,
        running_gateway(tmp_path / "log", *flags, environment=environment) as gateway,
    ):
        wait_for(lambda: len(workers_of(gateway.pid)) == 2, what="two workers")
        family = workers_of(gateway.pid)
        # Until a worker has asked Triton for its models, it answers 503, as it should.
        ready = f"model {DEFAULT_MODEL} version 1 is ready"
        wait_for(lambda: gateway.log.read_text().count(ready) == 2, what="two ready workers")

        stopped = threading.Event()

        def send_until_stopped(seed: int) -> list[int]:
            statuses = []
            while not stopped.is_set():
                response = classify(gateway, photo(seed, 60, 60), "?model=linear")
                statuses.append(response.status_code)
            return statuses

        clients = [threads.submit(send_until_stopped, seed) for seed in range(4)]
        try:
            wait_for(lambda: status(f"{gateway.url}/livez") == 200)
            os.kill(gateway.pid, number)
            # What comes within --drain-seconds is taken: a load balancer has not noticed yet.
            if number == signal.SIGTERM:
                wait_for(lambda: status(f"{gateway.url}/readyz") == 503, what="not ready")
        finally:
            stopped.set()
        answers = [answer for client in clients for answer in client.result(30)]
        assert set(answers) == {200}
        assert gateway.process.wait(30) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        wait_for(lambda: not [p for p in family if Path(f"/proc/{p}").exists()], what="their end")
        if number == signal.SIGTERM:
            assert not list(tmp_path.glob("mixer-serving-metrics-*"))
        assert "Traceback" not in gateway.log.read_text()


# Nobody is there: a worker that has nothing to serve drains all the same.
ALONE = ("--triton-url", "127.0.0.1:1", "--workers", "2")


def is_draining(gateway: Gateway) -> bool:
    """Whether the worker that happens to answer drains."""
    with client_of(gateway) as client:
        return str(client.get("/readyz").json()["type"]).endswith(":draining")


def wait_for_workers(gateway: Gateway) -> set[int]:
    """Both workers, once they take SIGTERM, and SIGINT before it, for a reason to stop."""

    def takes_signals(pid: int) -> bool:
        text = Path(f"/proc/{pid}/status").read_text()
        caught = int(text.partition("SigCgt:")[2].split()[0], 16)
        return bool(caught & 1 << signal.SIGTERM - 1)

    def both() -> set[int] | None:
        found = workers_of(gateway.pid)
        return found if len(found) == 2 and all(map(takes_signals, found)) else None

    return wait_for(both, what="two workers that take signals")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_to_the_whole_group_does_not_skip_the_draining(
    number: signal.Signals, tmp_path: Path
) -> None:
    drain = 3.0
    with running_gateway(
        tmp_path / "log", *ALONE, "--drain-seconds", str(drain), ready=False
    ) as gateway:
        wait_for_workers(gateway)
        began = time.monotonic()
        os.killpg(gateway.pid, number)  # as a terminal and systemd do
        assert gateway.process.wait(30) == 0
        assert time.monotonic() - began >= drain
        assert "Traceback" not in gateway.log.read_text()


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_a_second_signal_skips_the_draining(
    send: Callable[[int, int], None], tmp_path: Path
) -> None:
    with running_gateway(tmp_path / "log", *ALONE, "--drain-seconds", "90", ready=False) as gateway:
        family = wait_for_workers(gateway)
        send(gateway.pid, signal.SIGTERM)
        wait_for(lambda: is_draining(gateway), what="a worker that drains")
        # Two that come before the parent has looked at the first are one to it.
        for _ in range(4):
            send(gateway.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                gateway.process.wait(15)
                break
        assert gateway.process.returncode == 0
        assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
        assert "Traceback" not in gateway.log.read_text()
