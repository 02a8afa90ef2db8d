"""A tritonserver that dies or has lost a stub is started again; within limits."""

import asyncio
import dataclasses
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contracts.probing import write_golden
from server.host import crash_loop
from server.local_triton.command_line import Listen
from server.local_triton.installation import Wheel
from server.local_triton.launch import Launch
from server.local_triton.process import SHARED_MEMORY, tritonserver
from server.local_triton.restarts import Supervisor, free_port
from server.local_triton.stubs import children, is_alive
from server.local_triton.supervisor import ENVIRONMENT, LocalTriton, LocalTritonError
from tests import tiny_models
from tests.server.local_triton.harm import infer, kill_server, kill_stub, refusal, stop_for_good
from tests.stack import running_triton
from tests.waiting import wait_for

Break = Callable[[LocalTriton], None]


@pytest.mark.parametrize("harm", [kill_server, kill_stub])
def test_comes_back_on_the_same_address(model_repository: Path, harm: Break) -> None:
    with running_triton(model_repository) as triton:
        before, pid = infer(triton.grpc_url), triton.pid
        assert pid is not None
        processes = [pid, *children(pid)]
        harm(triton)
        wait_for(lambda: triton.pid not in (None, pid), what="another tritonserver")
        after = infer(triton.grpc_url)
        assert before is not None
        assert after is not None
        # It may have shared its batch with a probe, whose sums are rounded in another order.
        np.testing.assert_allclose(before, after, rtol=0, atol=1e-6)
        assert not any(map(is_alive, processes))
    assert not list(SHARED_MEMORY.glob(f"mixer_serving_{os.getpid()}_{triton.grpc_port}_*"))


def test_comes_back_although_its_stubs_stay(model_repository: Path) -> None:
    with running_triton(model_repository) as triton:
        pid = triton.pid
        assert pid is not None
        stubs = children(pid)
        member = stop_for_good(pid)
        kill_server(triton)
        wait_for(lambda: triton.pid not in (None, pid), what="another tritonserver")
        assert infer(triton.grpc_url) is not None
        assert not any(map(is_alive, stubs))
        assert member.wait(10) == -signal.SIGKILL


@dataclasses.dataclass
class Failing:
    """A `Program` that is no tritonserver: a shell script."""

    script: str

    def prepare(self, folder: Path, prefix: str) -> Launch:  # noqa: ARG002 - as the base
        path = folder / "tritonserver"
        path.write_text(f"#!/bin/sh\n{self.script}\n")
        path.chmod(0o700)
        return Launch(str(path), folder, [], {"PATH": os.environ["PATH"]})

    def can_do_without(self, error: LocalTritonError) -> bool:  # noqa: ARG002 - as the base
        return False

    def helpers(self, pid: int) -> list[int]:  # noqa: ARG002 - as the base
        return []

    def cpu_seconds(self, pid: int, model: str | None) -> float | None:  # noqa: ARG002 - as the base
        return None


def test_a_start_that_fails_says_why_in_the_words_of_whatever_failed() -> None:
    """Also of a library that is not found: its line has not the form of Triton's log."""
    listen = Listen(free_port(), free_port(), free_port())

    async def start() -> None:
        async with tritonserver(
            Failing("echo one; echo libcuda: no such file >&2; exit 3"), listen
        ):
            pytest.fail("it started")

    for _ in range(20):  # the exit status was lost at times
        with pytest.raises(LocalTritonError) as failed:
            asyncio.run(start())
        assert str(failed.value) == (
            "Triton ended at its start (exit status 3): one; libcuda: no such file"
        )


class Counted(Wheel):
    """The real tritonserver, behind a shell script that is given `$n`, the number of the start."""

    def __init__(self, script: str, repository: Path) -> None:
        super().__init__(ENVIRONMENT, repository, open_http=False)
        self.starts = 0
        self._script = script

    def prepare(self, folder: Path, prefix: str) -> Launch:
        launch = super().prepare(folder, prefix)
        self.starts += 1
        path = folder / "counted"
        path.write_text(f'#!/bin/sh\nn={self.starts}\n{self._script}\nexec {launch.binary} "$@"\n')
        path.chmod(0o700)
        return dataclasses.replace(launch, binary=str(path))


ABORT = "echo terminate called without an active exception; kill -ABRT $$"


def test_one_that_crashes_at_its_first_start_is_started_once_more(
    model_repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counted = Counted(f"[ $n = 1 ] && {{ {ABORT}; }}", model_repository)

    async def main() -> None:
        triton = Supervisor(lambda: counted, Listen(free_port(), free_port(), free_port()))
        supervisor = asyncio.create_task(triton.run())
        serving = asyncio.create_task(triton.serving.wait())
        await asyncio.wait((supervisor, serving), return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        try:
            assert triton.serving.is_set()
        finally:
            await triton.stop()
            await supervisor

    asyncio.run(main())
    assert counted.starts == 2
    told = "Triton ended at its start (SIGABRT): terminate called without an active exception"
    assert f"{told}; starting it once more" in caplog.text


@pytest.mark.parametrize(
    ("script", "starts", "message"),
    [
        (ABORT, 2, "SIGABRT): terminate called without an active exception"),
        ("echo no such flag; exit 1", 1, "exit status 1): no such flag"),
    ],
)
def test_one_that_cannot_start_ends_with_its_words(
    script: str, starts: int, message: str, model_repository: Path
) -> None:
    counted = Counted(script, model_repository)
    triton = Supervisor(lambda: counted, Listen(free_port(), free_port(), free_port()))
    with pytest.raises(LocalTritonError) as failed:
        asyncio.run(triton.run())
    assert str(failed.value) == f"Triton ended at its start ({message}"
    assert counted.starts == starts


def test_gives_up_on_one_that_keeps_dying(
    model_repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crash_loop.CrashLoop, "hopeless", property(lambda loop: loop.deaths >= 2))

    async def main() -> None:
        triton = LocalTriton(model_repository)
        supervisor = asyncio.create_task(triton.run())
        killed = None
        while not supervisor.done():
            if triton.pid not in (None, killed):
                killed = triton.pid
                kill_server(triton)
            await asyncio.sleep(0.02)
        await supervisor

    with pytest.raises(LocalTritonError, match="2 times in a row"):
        asyncio.run(main())
    assert "starting it again" in caplog.text


def test_serves_the_models_that_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_models.publish(tmp_path, "good")
    broken = tiny_models.publish(tmp_path, "broken")
    (broken / tiny_models.MODEL_FILE).write_bytes(b"not a graph")
    with running_triton(tmp_path) as triton:
        assert infer(triton.grpc_url, "good") is not None
        assert infer(triton.grpc_url, "broken") is None
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "failed to load 'broken'" in errors[0]


def test_refuses_a_port_that_is_taken(model_repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert f"127.0.0.1:{port}" in refusal(LocalTriton(model_repository, grpc_port=port))
        assert f"127.0.0.1:{port}" in refusal(LocalTriton(model_repository, metrics_port=port))


def test_can_be_stopped_at_any_time(model_repository: Path) -> None:
    async def main(patience: float) -> None:
        triton = LocalTriton(model_repository)
        supervisor = asyncio.create_task(triton.run())
        await asyncio.sleep(patience)
        await triton.stop()
        await supervisor
        await triton.run()  # stays stopped
        assert triton.pid is None

    before = children(os.getpid())
    for patience in (0, 0.2):  # before it has begun, while it loads its models
        asyncio.run(main(patience))
    # Of what other tests have started something may have ended meanwhile.
    assert set(children(os.getpid())) <= set(before)


def test_a_free_port_is_another_each_time() -> None:
    ports = [free_port() for _ in range(1000)]
    assert len(set(ports)) == len(ports)


def test_problems_are_reported_by_model(tmp_path: Path) -> None:
    tiny_models.publish(tmp_path, "good")
    broken = tiny_models.publish(tmp_path, "broken")
    (broken / tiny_models.MODEL_FILE).write_bytes(b"not a graph")
    wrong = tiny_models.publish(tmp_path, "wrong", seed=1)
    right = tiny_models.publish(tmp_path, "right", seed=1)
    for folder, seed in ((wrong, 2), (right, 1)):
        write_golden(folder, tiny_models.golden(seed))
    with running_triton(tmp_path) as triton:
        wait_for(lambda: triton.models() == ["good", "right"], what="two good models")
        wait_for(lambda: "gives class" in str(triton.problems()), what="a wrong answer told")
        problems = triton.problems()
        assert problems.keys() == {"broken", "wrong"}
        assert problems["broken"].startswith("is not loaded: Internal: InvalidProtobuf")
        assert re.match(
            r"gives class \d 0\.\d+ instead of 0\.\d+, which it gave", problems["wrong"]
        )
        # Nothing of it is a reason to start Triton again.
        assert triton.restarts == {}
