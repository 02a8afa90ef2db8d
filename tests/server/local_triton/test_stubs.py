"""The stubs are found, and run at a lower priority than Triton itself."""

import os
import subprocess
import sys
from pathlib import Path

from server.local_triton.stubs import children, cpu_seconds, is_alive, model_of, of_model
from server.local_triton.supervisor import LocalTriton
from tests import tiny_models
from tests.stack import running_triton
from tests.waiting import wait_for


def test_a_stub_runs_at_a_lower_priority_than_tritonserver(triton: LocalTriton) -> None:
    """Niceness may count within a session only; signals of a terminal go to a process group."""
    assert triton.pid is not None
    assert os.getsid(triton.pid) == os.getsid(0)
    assert os.getpgid(triton.pid) == triton.pid
    lower = min(19, os.getpriority(os.PRIO_PROCESS, triton.pid) + 10)
    stubs = children(triton.pid)
    assert stubs
    for stub in stubs:
        assert os.getpgid(stub) == triton.pid
        assert os.getpriority(os.PRIO_PROCESS, stub) == lower


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        assert child.pid in children(os.getpid())
        child.kill()
        wait_for(lambda: not is_alive(child.pid))
        assert child.pid not in children(os.getpid())
    assert not children(child.pid)


def test_cpu_time_of_a_process_with_its_children_or_without() -> None:
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {burn!r} + 'input()'])\n"
        "child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        wait_for(lambda: cpu_seconds([process.pid], with_children=True) > 0.3)
        assert cpu_seconds([process.pid], with_children=False) < 0.3
    assert cpu_seconds([process.pid], with_children=True) == 0.0


def test_stubs_are_found_by_their_model(tmp_path: Path) -> None:
    tiny_models.publish(tmp_path, "a", instances=2)
    tiny_models.publish(tmp_path, "a_0")
    with running_triton(tmp_path) as triton:
        assert triton.pid is not None
        assert len(of_model(triton.pid, "a")) == 2
        assert len(of_model(triton.pid, "a_0")) == 1
        assert model_of(triton.pid) is None
