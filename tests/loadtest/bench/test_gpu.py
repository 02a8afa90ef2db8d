"""The run for a GPU, on the CPU with networks of the tests; `nvidia-smi` is a stand-in."""

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from loadtest import bare
from loadtest.bench import gpu
from tests.loadtest.bench import hanging
from tests.loadtest.runs import loadtest

SMI = """#!/bin/sh
case "$1" in
  *clocks.sm,*) echo "1980 MHz, 412.50 W, 97 %, 2048 MiB, 51" ;;
  *) echo "NVIDIA H200, 580.1, 143771 MiB, 700.00 W, 1980 MHz, Enabled, Disabled" ;;
esac
"""


@pytest.mark.timeout(300)
def test_each_way_is_a_result_with_the_gpu_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "programs/nvidia-smi"
    program.parent.mkdir()
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    out = tmp_path / "results"
    done = loadtest(
        *("bench", "gpu", "--models", "mixer_testing", "--batch-sizes", "1", "2"),
        *("--precision", "float32", "--seconds", "0.01", "--windows", "1", "--out", out),
    )
    assert done.returncode == 0, done.stderr
    found = {path.stem.rpartition("_float32_")[2]: path for path in out.iterdir()}
    assert set(found) == {f"{way}_mixer_testing" for way in ("eager", "compiled", "jax")}
    for name, path in found.items():
        result = json.loads(path.read_text())
        assert result["kind"] == "bare"
        assert result["complete"]
        [framework] = result["frameworks"].values()
        assert ("compiled" in framework["precision"]) == name.startswith("compiled")
        sweep = framework["results"][0]["sweep"]
        assert [each["batch_size"] for each in sweep] == [1, 2]
        assert result["gpus"][0]["power.draw"] == "412.50 W"


def test_nothing_begins_when_the_time_is_over(tmp_path: Path) -> None:
    done = loadtest("bench", "gpu", "--minutes", "0.1", "--out", tmp_path)
    assert done.returncode == 1
    assert "the time is over before mixer_b16, eager" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(300)
def test_a_program_that_hangs_is_ended_when_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(bare.ROOMS, "pytorch", hanging.__name__)
    monkeypatch.setenv("HANGING", str(tmp_path / "pids"))
    monkeypatch.setattr(gpu, "FIRST_SECONDS", 0.0)
    began = time.monotonic()
    assert gpu.main(minutes=0.1, models=("mixer_testing",), out=tmp_path / "results") == 1
    assert time.monotonic() - began < hanging.SECONDS / 4
    for pid in (tmp_path / "pids").read_text().split():
        assert not psutil.pid_exists(int(pid)) or (
            psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
        )
    told = capsys.readouterr().err
    assert "mixer_testing, eager: python -m tests.loadtest.bench.hanging throughput" in told
    assert "did not end within its time" in told
    assert "the time is over before mixer_testing, compiled" in told
