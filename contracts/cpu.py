"""The features of a CPU that decide how fast and how exactly it computes in reduced precision.

In: Linux's list of the CPU's flags. Out: the flags that matter, which export records beside its
gate and engines check before they compute; whether 8-bit products are exact, and how ONNX Runtime
keeps them exact. Imports only the standard library, since the local Triton's environment gets a
copy of this file.
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
# The x86-64 instructions that sum products of 8-bit integers in 32 bits. Without them two products
# are first added in 16 bits, where products of u8 and s8 overflow and are cut off.
EXACT_INT8 = {"avx_vnni", "avx512_vnni", "amx_int8"}
# ONNX Runtime's option of a session that keeps 8-bit products from being cut off: the answers are
# bit for bit those of a CPU with VNNI. Where nothing is cut off it would only cost speed: with VNNI
# a Mixer-B/16 takes twice the CPU time with it.
EXACT = "session.x64quantprecision"


def cpu_flags(cpu_info: Path = CPU_INFO) -> list[str]:
    """The TELLING_FLAGS that this x86-64 CPU has, as Linux lists them; none on other systems."""
    try:
        words = set(cpu_info.read_text().split())
    except OSError:
        return []
    return [flag for flag in TELLING_FLAGS if flag in words]


def int8_is_exact(flags: Iterable[str], machine: str | None = None) -> bool:
    """Whether a CPU with these flags adds up products of 8-bit integers without cutting them off.

    `machine` is the CPU's architecture, by default this machine's. Architectures other than x86-64,
    for example arm64, never cut products off.
    """
    x86 = (machine or platform.machine()).lower() in {"x86_64", "amd64"}
    return not x86 or not EXACT_INT8.isdisjoint(flags)


def exact_products(flags: Iterable[str]) -> dict[str, str]:
    """The options of an ONNX Runtime session for exact 8-bit products on a CPU with these flags."""
    return {} if int8_is_exact(flags) else {EXACT: "1"}
