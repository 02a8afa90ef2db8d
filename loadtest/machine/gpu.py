"""What NVIDIA's driver says about the GPUs of this machine.

In: the program nvidia-smi, where it is installed. Out: the GPUs' names with the settings that a
measurement depends on, and the GPUs' state now.
"""

import functools
import subprocess

CONDITIONS = (
    *("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm"),
    *("ecc.mode.current", "mig.mode.current"),
)
STATE = ("clocks.sm", "power.draw", "utilization.gpu", "memory.used", "temperature.gpu")


@functools.cache
def gpus() -> tuple[str, ...]:
    """A line for each GPU: name, driver, memory, power limit, greatest clock, ECC, MIG."""
    labels = ("", "driver ", "memory ", "power limit ", "greatest clock ", "ECC ", "MIG ")
    return tuple(
        ", ".join(f"{label}{value}" for label, value in zip(labels, row, strict=True))
        for row in _query(CONDITIONS)
    )


def gpu_state() -> list[dict[str, str]]:
    """For each GPU: clock, power draw, utilisation, memory used and temperature, now."""
    return [dict(zip(STATE, row, strict=True)) for row in _query(STATE)]


def _query(names: tuple[str, ...]) -> list[list[str]]:
    command = ("nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == len(names)]
