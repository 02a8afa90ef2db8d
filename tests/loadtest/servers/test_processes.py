"""CPU time by role, of real processes that burn a known amount of it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from loadtest.servers.processes import STUB, Watched, named, program, tree
from tests.waiting import wait_for

SPIN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\n"
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.argv[1], "-c", sys.argv[2]])
print("up", flush=True)
sys.stdin.read()
child.kill()
child.wait()
"""


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A Python that is called as the program in which Triton runs a model."""
    path = tmp_path / STUB
    path.symlink_to(shutil.which(sys.executable) or sys.executable)
    return path


@pytest.fixture
def parent(stub: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with a child, which burns 0.3 s and then waits."""
    code = SPIN.format(0.3) + "time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(stub), code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONHOME": sys.base_prefix},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.communicate()


def test_the_seconds_of_each_role(parent: subprocess.Popen[str]) -> None:
    wait_for(lambda: named(parent.pid, STUB))
    watched = Watched({"gateway": parent.pid})
    wait_for(lambda: watched.cpu_seconds()["model"] >= 0.3)
    (child,) = named(parent.pid, STUB)
    wait_for(lambda: child.status() == psutil.STATUS_SLEEPING, what="a child that only sleeps")
    found = watched.cpu_seconds()
    assert set(found) == {"gateway", "event_loop", "model"}
    # The kernel cuts user and system time to hundredths, for a thread and for its process.
    assert found["event_loop"] <= found["gateway"] + 0.02
    assert watched.cpu_seconds()["model"] == pytest.approx(found["model"], abs=0.05)
    assert watched.total_seconds() >= found["model"]


def test_the_tree_is_a_process_and_all_below_it(parent: subprocess.Popen[str]) -> None:
    wait_for(lambda: len(tree(parent.pid)) == 2)
    (child,) = named(parent.pid, STUB)
    assert program(child) == STUB  # longer than the 15 letters that the kernel keeps
    assert tree(os.getpid())[0].pid == os.getpid()
    assert {parent.pid, child.pid} < {each.pid for each in tree(os.getpid())}


def test_what_has_ended_is_none() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert tree(ended.pid) == []
    assert Watched({"gateway": ended.pid}).cpu_seconds() == {}
