"""What the kernel says of a CPU, and what follows for INT8."""

from pathlib import Path

import pytest

from contracts.cpu import EXACT, cpu_flags, exact_products, int8_is_exact


@pytest.mark.parametrize(
    ("flags", "machine", "exact"),
    [
        ("flags : fpu avx2 fma", "x86_64", False),
        ("flags : avx2 avx512f avx512_bf16", "x86_64", False),
        ("flags : avx2 avx_vnni", "AMD64", True),
        ("flags : avx512f avx512_vnni amx_int8 amx_bf16", "x86_64", True),
        ("Features : fp asimd asimddp", "aarch64", True),
    ],
)
def test_the_flags_tell_whether_products_are_exact(
    tmp_path: Path, flags: str, machine: str, exact: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert int8_is_exact(cpu_flags(tmp_path / "cpuinfo"), machine) == exact


def test_onnx_runtime_is_told_only_where_it_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contracts.cpu.platform.machine", lambda: "x86_64")
    assert exact_products(["avx2", "avx512f"]) == {EXACT: "1"}
    assert exact_products(["avx2", "avx_vnni"]) == {}
