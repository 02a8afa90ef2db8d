"""What a CPU can do that decides how fast, and how exactly, it computes in reduced precision.

In: Linux's list of the CPU's flags. Out: those that tell, which export writes down beside its gate
and engines look at before they compute; and whether 8-bit products are exact. Python's own library
alone, since the local Triton's environment gets a copy of this file.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
TELLING_FLAGS = (
    *("avx2", "avx512f", "avx512_bf16", "amx_bf16"),
    *("avx_vnni", "avx512_vnni", "amx_int8"),
)
# x86-64's instructions that add up products of 8-bit integers in 32 bits. Without them two products
# are first added in 16 bits, where those of u8 and s8 overflow and are cut off.
EXACT_INT8 = {"avx_vnni", "avx512_vnni", "amx_int8"}


def cpu_flags(cpu_info: Path = CPU_INFO) -> list[str]:
    """Those of TELLING_FLAGS that this x86-64 CPU has, by Linux; none on other systems."""
    try:
        words = set(cpu_info.read_text().split())
    except OSError:
        return []
    return [flag for flag in TELLING_FLAGS if flag in words]


def int8_is_exact(flags: Iterable[str], machine: str | None = None) -> bool:
    """Whether a CPU with these flags adds up products of 8-bit integers without cutting them off.

    `machine` is its kind, by default this one's. Kinds other than x86-64, as arm64, do.
    """
    x86 = (machine or platform.machine()).lower() in {"x86_64", "amd64"}
    return not x86 or not EXACT_INT8.isdisjoint(flags)
