"""What a supervised Triton tells of itself, asked over HTTP."""

import asyncio
import contextlib
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.local_triton.restarts import Reason, Supervisor
from server.local_triton.status import Status
from server.local_triton.supervisor import free_port
from tests.waiting import wait_for


@dataclass
class Stub:
    """What a supervisor would tell; a real one is in test_alone.py."""

    fault: dict[str, str] = field(default_factory=dict)
    restarts: Counter[Reason] = field(default_factory=Counter)

    def problems(self) -> dict[str, str]:
        return self.fault

    def models(self) -> list[str]:
        return sorted({"cat", 'd"og'} - self.fault.keys())


@contextlib.contextmanager
def telling(supervisor: Stub, **options: Any) -> Iterator[str]:
    """The address of a status server."""
    loop = asyncio.new_event_loop()
    port = free_port()
    status = Status(cast(Supervisor, supervisor), **options)
    task = loop.create_task(status.run("127.0.0.1", port))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        wait_for(lambda: reached(port), what="a status")
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(task.cancel)
        # The server has ended, and the connections that it had: each sees that its client has gone.
        wait_for(lambda: not asyncio.all_tasks(loop), what="no connection")
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def reached(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False)


def test_ready_the_first_time_is_one_whose_every_model_is_healthy() -> None:
    supervisor = Stub({"cat": "gives class 1 0.2 instead of 0.9"})
    with telling(supervisor) as url:
        answer = get(f"{url}/readyz")
        assert answer.status_code == 503
        assert answer.json() == {
            "ready": False, "models": ['d"og'],
            "problems": {"cat": "gives class 1 0.2 instead of 0.9"},
        }  # fmt: skip
        supervisor.fault = {}
        assert get(f"{url}/readyz").status_code == 200
        # From now on a single bad model does not take the others away.
        supervisor.fault = {"cat": "does not answer"}
        assert get(f"{url}/readyz").status_code == 200
        supervisor.fault = {"cat": "does not answer", 'd"og': "does not answer"}
        assert get(f"{url}/readyz").status_code == 503
        supervisor.fault = {"": "Triton is being started"}
        assert get(f"{url}/readyz").status_code == 503
        assert get(f"{url}/livez").status_code == 200


def test_any_model_can_be_enough_from_the_beginning() -> None:
    with telling(Stub({"cat": "is not loaded: x"}), ready_when="any") as url:
        assert get(f"{url}/readyz").status_code == 200


def test_metrics_are_prometheus_own() -> None:
    supervisor = Stub({"cat": "does not answer"}, Counter({Reason.HUNG: 2}))
    with telling(supervisor, more_metrics=lambda: ['mixer_triton_engine{model="x"} 1']) as url:
        answer = get(f"{url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    own = str(os.getpid())
    usage = {name for name in found if "process" in name[0]}
    assert {name[:2] for name in usage} >= {
        ("mixer_triton_process_cpu_seconds_total", own),
        ("mixer_triton_process_memory_bytes", own),
    }
    assert all(found[name] > 0 for name in usage if name[1] == own)
    assert {name: value for name, value in found.items() if name not in usage} == {
        ("mixer_triton_ready",): 0,
        ("mixer_triton_model_healthy", "cat"): 0,
        ("mixer_triton_model_healthy", 'd"og'): 1,
        ("mixer_triton_restarts_total", "died"): 0,
        ("mixer_triton_restarts_total", "hung"): 2,
        ("mixer_triton_engine", "x"): 1,
    }


def test_whatever_is_sent_gets_an_answer_or_nothing() -> None:
    with telling(Stub()) as url:
        assert get(f"{url}/").status_code == 404
        assert get(f"{url}/readyz?verbose").status_code == 200
        assert httpx.post(f"{url}/readyz", trust_env=False).status_code == 405
        port = int(url.rpartition(":")[2])
        for nonsense in (b"", b"\r\n\r\n", b"GET\r\n\r\n", b"x" * 20_000, b"GET /livez HT"):
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                client.settimeout(10)
                client.sendall(nonsense)
                client.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    assert b"200" not in client.recv(65536)
        assert get(f"{url}/livez").status_code == 200


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        asyncio.run(Status(cast(Supervisor, Stub())).run("127.0.0.1", taken.getsockname()[1]))
