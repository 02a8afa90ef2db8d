"""The stubs are found, and run at a lower priority than Triton itself."""

import os
import subprocess

from server.local_triton.stubs import children, is_alive
from server.local_triton.supervisor import LocalTriton
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
