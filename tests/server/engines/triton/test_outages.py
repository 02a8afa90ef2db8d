"""Readiness and requests while Triton's backend dies or hangs, or the network swallows all."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx

from server.local_triton.stubs import children
from server.local_triton.supervisor import LocalTriton
from tests import stack
from tests.photos import photo
from tests.relay import Relay
from tests.stack import (
    DEFAULT_MODEL,
    Asker,
    Gateway,
    check_same,
    running_gateway,
    running_stack,
    status,
)
from tests.waiting import frozen, wait_for

IMAGE = photo(0, 64, 48)
DEADLINE = 2.0
HEADERS = {"Content-Type": "image/jpeg", "X-Request-Timeout": str(DEADLINE)}
# Documented are 5 s until /readyz is 503 and 10 s until it is 200 again; a loaded machine that runs
# the tests may take its time.
PATIENCE = 20.0


def classify(gateway: Gateway) -> httpx.Response:
    """While all is well, so with no deadline that a busy machine could miss."""
    return stack.classify(gateway, IMAGE)


@contextlib.contextmanager
def load(gateway: Gateway, clients: int = 4) -> Iterator[list[tuple[int, float]]]:
    """Requests one after another from each client; their statuses and seconds."""
    answers: list[tuple[int, float]] = []
    enough = threading.Event()

    def told(response: httpx.Response, seconds: float) -> None:
        answers.append((response.status_code, seconds))

    threads = [
        Asker(gateway, IMAGE, enough, told, headers=HEADERS, pause=0.02) for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(answers) > 2 * clients, what="answers")
        yield answers
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def check(answers: list[tuple[int, float]]) -> None:
    """Only what was promised, and no request beyond its deadline."""
    assert {code for code, _ in answers} <= {200, 503, 504}
    assert {code for code, _ in answers} & {503, 504}
    assert max(seconds for _, seconds in answers) < DEADLINE + 5


def not_ready_then_ready(gateway: Gateway, mend: contextlib.AbstractContextManager[object]) -> None:
    ready = f"{gateway.url}/readyz"
    with mend:
        wait_for(lambda: status(ready) == 503, PATIENCE, "not ready")
        assert status(f"{gateway.url}/livez") == 200
    wait_for(lambda: status(ready) == 200, PATIENCE, "ready again")


def stub_of(triton: LocalTriton, model: str) -> int:
    """The process that runs a model, as soon as there is one."""

    def found() -> int | None:
        stubs = children(triton.pid) if triton.pid else []
        for pid in stubs:
            with contextlib.suppress(OSError):
                if model.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return None

    return wait_for(found, what=f"a process of {model}")


def test_a_killed_and_a_hanging_backend(model_repository: Path, tmp_path: Path) -> None:
    with running_stack(model_repository, tmp_path / "log") as (triton, gateway):
        right = classify(gateway).json()["predictions"]
        # Not the default model: each one counts.
        not_ready_then_ready(gateway, frozen(stub_of(triton, "linear")))
        with load(gateway) as answers:
            os.kill(stub_of(triton, DEFAULT_MODEL), signal.SIGKILL)
            not_ready_then_ready(gateway, contextlib.nullcontext())
        check(answers)
        again = classify(gateway)
        assert again.status_code == 200
        check_same(again.json()["predictions"], right)


def test_a_network_that_swallows_everything(triton: LocalTriton, tmp_path: Path) -> None:
    relay = Relay(triton.grpc_url)
    try:
        with running_gateway(
            tmp_path / "log", "--triton-url", relay.url, "--default-model", DEFAULT_MODEL
        ) as gateway:
            right = classify(gateway).json()["predictions"]
            with load(gateway) as answers:
                not_ready_then_ready(gateway, relay.swallowing())
            check(answers)
            check_same(classify(gateway).json()["predictions"], right)
            # Its stop does not wait for what was swallowed.
            relay.close()
    finally:
        relay.close()
