"""What a number depends on, as it is read from this machine, and from a GPU's driver."""

import os
import re
from pathlib import Path

import pytest

from loadtest.machine import conditions, gpu

# As nvidia-smi of driver 550 prints them; there is no GPU on the machines that test this.
CARD = "NVIDIA H200, 550.90.07, 143771 MiB, 700.00 W, 1980 MHz, Enabled, Disabled"
STATE = "1755 MHz, 412.30 W, 97 %, 20312 MiB, 54"


def test_this_machine() -> None:
    found = conditions.conditions()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", found["date"])
    assert found["cpu"].endswith(f", {conditions.cores()} cores")
    assert re.fullmatch(r"[0-9a-f]{12}(, (perhaps )?with changes)?|unknown", found["commit"])
    assert int(found["memory"].removesuffix(" GiB")) > 0
    flags = set(found["cpu_flags"].split(", "))
    assert flags <= set(conditions.CPU_FLAGS) or flags == {"none of those looked for"}


def test_flags_that_matrix_products_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "cpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Xeon\n"
        "flags\t\t: fpu avx2 avx512f amx_tile amx_int8 sse\n"
    )
    monkeypatch.setattr(conditions, "_read", lambda _: text)
    assert conditions.cpu_flags() == "avx2, avx512f, amx_tile, amx_int8"
    assert conditions.cpu_model() == "Xeon"
    assert conditions.cpu_family() == "family 6, model 143"
    monkeypatch.setattr(conditions, "_read", lambda _: "Processor : ARMv8\n")
    assert conditions.cpu_family() == "not told"


def test_a_gpu_is_named_with_what_its_speed_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f'#!/bin/sh\ncase "$1" in *driver_version*) echo "{CARD}";; *) echo "{STATE}";; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    gpu.gpus.cache_clear()
    try:
        (card,) = gpu.gpus()
        assert card == (
            "NVIDIA H200, driver 550.90.07, memory 143771 MiB, power limit 700.00 W, "
            "greatest clock 1980 MHz, ECC Enabled, MIG Disabled"
        )
        assert conditions.device_slug() == "nvidia-h200"
        assert gpu.gpu_state()[0]["utilization.gpu"] == "97 %"
    finally:
        gpu.gpus.cache_clear()


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    gpu.gpus.cache_clear()
    try:
        assert gpu.gpus() == ()
        assert gpu.gpu_state() == []
        assert conditions.commit() == "unknown"
    finally:
        gpu.gpus.cache_clear()


def test_changes_that_git_does_not_tell_are_not_denied(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "git"
    program.write_text('#!/bin/sh\n[ "$3" = rev-parse ] && echo 0123456789ab\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert conditions.commit() == "0123456789ab, perhaps with changes"


def test_parts_of_a_files_name() -> None:
    assert conditions.slug("AMD EPYC 9B14 (2)") == "amd-epyc-9b14-2"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{4}", conditions.now())
