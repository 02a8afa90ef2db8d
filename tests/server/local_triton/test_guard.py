"""A tritonserver whose launcher dies ends with it, and so do its stubs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.local_triton.stubs import children, is_alive
from server.local_triton.supervisor import free_port
from tests.server.local_triton.harm import infer, shared_memory, stop_for_good
from tests.stack import DEFAULT_MODEL, Gateway, running_gateway
from tests.waiting import CHECKOUT, wait_for


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_leaves_nothing_behind(
    model_repository: Path, tmp_path: Path, number: signal.Signals
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with running_gateway(
        tmp_path / "log",
        *("--with-triton", "--repository", str(model_repository)),
        *("--default-model", DEFAULT_MODEL),
        environment={"TMPDIR": str(scratch)},
    ) as gateway:
        server, *others = children(gateway.pid)
        stubs = children(server)
        assert not others
        assert len(stubs) == 2  # one for each model
        assert shared_memory(gateway.pid)
        end(gateway, number)
        wait_for(lambda: not any(map(is_alive, (server, *stubs))), what="no process")
        wait_for(lambda: not shared_memory(gateway.pid), what="no shared memory")
        if number == signal.SIGKILL:  # the guard removes the one after the other
            wait_for(lambda: not list(scratch.iterdir()), what="no temporary files")
        assert not list(scratch.iterdir())


def test_a_killed_launcher_leaves_no_stub_that_hangs(model_repository: Path) -> None:
    ports = {name: str(free_port()) for name in ("grpc", "metrics", "http")}
    flags = [part for name, port in ports.items() for part in (f"--{name}-port", port)]
    command = [sys.executable, "-m", "server.triton_alone", "--repository", str(model_repository)]
    with subprocess.Popen([*command, *flags], cwd=CHECKOUT) as launcher:
        try:
            url = f"127.0.0.1:{ports['grpc']}"
            wait_for(lambda: infer(url) is not None, what="an answer")
            (server,) = children(launcher.pid)
            stubs = children(server)
            member = stop_for_good(server)
        finally:
            launcher.kill()
    wait_for(lambda: not any(map(is_alive, (server, *stubs))), what="no process")
    wait_for(lambda: not shared_memory(launcher.pid), what="no shared memory")
    assert member.wait(10) == -signal.SIGKILL


def end(gateway: Gateway, number: signal.Signals) -> None:
    """End it as a terminal does, which signals the whole group, or kill the launcher alone."""
    if number == signal.SIGKILL:
        gateway.process.kill()
        gateway.process.wait(30)
    else:
        os.killpg(gateway.pid, number)
        assert gateway.process.wait(30) == 0
