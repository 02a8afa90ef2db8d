"""`--workers`: how they end, with their parent and without it."""

import contextlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from server.local_triton import LocalTriton
from server.triton_process import children
from tests.conftest import DEFAULT_MODEL, photo, running_gateway, status, wait_for


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
        *("--workers", "2", "--drain-seconds", "2"),
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
                response = httpx.post(
                    f"{gateway.url}/classify?model=linear",
                    content=photo(seed, 60, 60),
                    trust_env=False,
                    timeout=30,
                )
                statuses.append(response.status_code)
            return statuses

        clients = [threads.submit(send_until_stopped, seed) for seed in range(4)]
        try:
            wait_for(lambda: status(f"{gateway.url}/livez") == 200, 10)
            os.kill(gateway.pid, number)
            # What comes within --drain-seconds is taken: a load balancer has not noticed yet.
            if number == signal.SIGTERM:
                wait_for(lambda: status(f"{gateway.url}/readyz") == 503, 10, "not ready")
        finally:
            stopped.set()
        answers = [answer for client in clients for answer in client.result(30)]
        assert set(answers) == {200}
        assert gateway.process.wait(30) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        wait_for(lambda: not [p for p in family if Path(f"/proc/{p}").exists()], 30, "their end")
        if number == signal.SIGTERM:
            assert not list(tmp_path.glob("mixer-serving-metrics-*"))
        assert "Traceback" not in gateway.log.read_text()
