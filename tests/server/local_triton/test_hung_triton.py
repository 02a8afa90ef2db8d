"""A real tritonserver that hangs, or one of whose models does, is started again; within limits."""

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.local_triton import hang, process, restarts
from server.local_triton.restarts import Reason
from server.local_triton.stubs import children, is_alive, of_model
from server.local_triton.supervisor import LocalTriton
from tests import sleepy_models
from tests.server.local_triton.harm import infer
from tests.stack import DEFAULT_MODEL, running_triton
from tests.waiting import wait_for

Break = Callable[[LocalTriton], None]


def stop_server(triton: LocalTriton) -> None:
    assert triton.pid is not None
    os.kill(triton.pid, signal.SIGSTOP)


def is_another(triton: LocalTriton, pid: int) -> bool:
    return triton.pid not in (None, pid)


def stop_a_stub(triton: LocalTriton) -> None:
    assert triton.pid is not None
    os.kill(children(triton.pid)[0], signal.SIGSTOP)


# SIGSTOP is to be noticed by failed probes alone: no process has died.
@pytest.mark.parametrize("harm", [stop_server, stop_a_stub])
def test_one_that_hangs_is_started_again_within_15_s(
    model_repository: Path, harm: Break, caplog: pytest.LogCaptureFixture
) -> None:
    with running_triton(model_repository) as triton:
        pid = triton.pid
        wait_for(lambda: not triton.problems(), what="an answer to every probe")
        began = time.monotonic()
        harm(triton)
        wait_for(lambda: triton.pid not in (None, pid), 15, "another tritonserver")
        assert infer(triton.grpc_url) is not None
        assert time.monotonic() - began < 15
        assert triton.restarts == {Reason.HUNG: 1}
        assert pid is not None
        assert not is_alive(pid)
    assert "has not answered its probe for" in caplog.text


def test_a_model_that_hangs_again_and_again_does_not_take_the_others_each_time(
    model_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hang, "IDLE_S", 2.0)
    monkeypatch.setattr(restarts, "HANG_PAUSE_S", 8.0)
    judge = hang.HangWatch.judge
    found: list[float] = []  # just before it is decided what follows from a hang
    ended: list[float] = []  # just after it was decided to end Triton

    def noted(watch: hang.HangWatch, now: float) -> list[tuple[str | None, str]]:
        hanging = judge(watch, now)
        found.extend(now for _ in hanging)
        return hanging

    class NotedError(process.HangError):
        def __init__(self, message: str, model: str | None) -> None:
            ended.append(time.monotonic())
            super().__init__(message, model)

    monkeypatch.setattr(hang.HangWatch, "judge", noted)
    monkeypatch.setattr(process, "HangError", NotedError)
    with running_triton(model_repository) as triton:
        for _ in range(2):
            pid = triton.pid
            assert pid is not None
            for stub in of_model(pid, "linear"):
                os.kill(stub, signal.SIGSTOP)
            another = functools.partial(is_another, triton, pid)
            wait_for(another, what="another tritonserver")
        # Before the pause is over the other model serves on, and what hangs is told. The pause is
        # as long as after many a hang, so that no machine is too slow to see that.
        again, _ = triton._hangs["linear"]
        triton._hangs["linear"] = again + 600, 600.0
        pid = triton.pid
        assert pid is not None
        for stub in of_model(pid, "linear"):
            os.kill(stub, signal.SIGSTOP)
        wait_for(lambda: "linear" in triton.problems(), what="the fault reported")
        # So long that, without the pause, the hang would have ended Triton again.
        told = time.monotonic()
        wait_for(lambda: time.monotonic() - told > 2 * hang.IDLE_S or triton.pid != pid)
        assert triton.pid == pid
        assert infer(triton.grpc_url) is not None
        assert triton.models() == [DEFAULT_MODEL]
        assert len(ended) == 2
        assert ended[1] - found[0] >= 8.0


def test_a_slow_model_is_let_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes for longer than a hang may last; nobody is answered meanwhile."""
    monkeypatch.setattr(hang, "IDLE_S", 1.5)
    sleepy_models.publish(tmp_path, "slow", 2.0, busy=True)
    with running_triton(tmp_path) as triton:
        pid = triton.pid
        for _ in range(4):
            assert infer(triton.grpc_url, "slow") is not None
        assert (triton.pid, triton.restarts) == (pid, {})
