"""What processes use, beside what psutil reads of the same ones."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from server.host import processes
from tests.waiting import wait_for

PARENT = """
import subprocess, sys
sum(range(10**7))
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print("started", flush=True)
input()
child.communicate()
"""


@pytest.fixture
def family() -> Iterator[psutil.Process]:
    """A process that has computed, and started another."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        yield psutil.Process(process.pid)
        process.communicate(b"\n")


def test_it_is_what_psutil_reads(family: psutil.Process) -> None:
    (child,) = family.children()
    wait_for(lambda: child.memory_info().rss > 2**22)
    found = {each.pid: each for each in processes.usage(family.pid)}
    assert found.keys() == {family.pid, child.pid}
    times = family.cpu_times()
    assert found[family.pid].cpu_seconds == pytest.approx(times.user + times.system, abs=0.1)
    assert found[family.pid].cpu_seconds > 0.05
    assert found[family.pid].memory_bytes == pytest.approx(family.memory_info().rss, rel=0.1)
    assert found[family.pid].name == family.name()


def test_a_program_can_be_left_out_with_what_it_started(family: psutil.Process) -> None:
    (child,) = family.children()
    (only,) = processes.usage(family.pid, without=child.name())
    assert only.pid == family.pid


def test_one_that_has_ended_uses_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert processes.usage(process.pid) == []


def test_a_system_without_proc_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processes, "PROC", tmp_path / "none")
    assert processes.usage(1) == []


def test_a_name_with_brackets_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 1 0 1 1000 3 0\n"
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_text(stat)
    monkeypatch.setattr(processes, "PROC", tmp_path)
    (found,) = processes.usage(7)
    assert found.name == "a) b (c"
    assert found.cpu_seconds == pytest.approx(2.0)
