"""The conditions of a measurement: the machine, the versions, the day.

Out: plain text by name. The report shows the conditions below every table; names of result files
have some of them.
"""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

import psutil

from loadtest import CHECKOUT
from loadtest.machine.gpu import gpus

TRITON_PACKAGES = sorted((CHECKOUT / ".venv-triton").glob("lib/python3.*/site-packages"))
PACKAGES = ("torch", "jax", "onnx", "fastapi", "uvicorn", "pillow", "numpy")
# The instructions that the speed of matrix products depends on.
CPU_FLAGS = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
)
NO_FAMILY = "not told"
FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq")
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def conditions() -> dict[str, str]:
    """The conditions on this machine, now."""
    found = {
        "date": day(),
        "commit": commit(),
        "cpu": f"{cpu_model()}, {cores()} cores",
        "cpu_family": cpu_family(),
        "cpu_flags": cpu_flags(),
        "cpu_frequency": _frequency(),
        "cpu_limit": _read(CPU_MAX) or "none",
        "gpu": "; ".join(gpus()) or "none",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "niceness_of_the_load_generator": str(psutil.Process().nice()),
        "load_average_before": f"{psutil.getloadavg()[0]:.2f}",
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for each in importlib.metadata.distributions(path=[str(path) for path in TRITON_PACKAGES]):
        if each.name == "onnxruntime":
            found["onnxruntime in the local Triton"] = each.version
    return found


def day() -> str:
    """Day and time (UTC), to be read."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def now() -> str:
    """Day and time (UTC) as part of a file's name."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d-%H%M")


def cores() -> int:
    """Cores that this process, and the servers that it starts, may use."""
    # macOS and Windows bind no process to some of the cores.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def commit(checkout: Path = CHECKOUT) -> str:
    """The checkout's commit, and whether files were changed since; "unknown" outside of git."""
    head = _run("git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    changed = _run("git", "-C", str(checkout), "status", "--porcelain", "--untracked-files=no")
    if changed is None:  # for example after 30 s on a slow disk
        return f"{head}, perhaps with changes"
    return f"{head}, with changes" if changed else head


def cpu_model() -> str:
    """The processor's own name."""
    names = re.findall(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    return names[0] if names else platform.processor() or platform.machine()


def cpu_family() -> str:
    """The processor's generation in its maker's numbers, for example "family 25, model 17"."""
    text = _read(Path("/proc/cpuinfo"))
    lines = (re.search(rf"^{key}\s*:\s*(\d+)$", text, re.M) for key in ("cpu family", "model"))
    family, model = (found[1] if found else "" for found in lines)
    return f"family {family}, model {model}" if family and model else NO_FAMILY


def cpu_flags() -> str:
    """Which of CPU_FLAGS the processor has."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")), re.M)
    flags = set(found[1].split()) if found else set()
    return ", ".join(flag for flag in CPU_FLAGS if flag in flags) or "none of those looked for"


def _frequency() -> str:
    governor = _read(FREQUENCY / "scaling_governor")
    kilohertz = _read(FREQUENCY / "scaling_max_freq")
    if not governor:
        return "not told, as in most virtual machines"
    return f"governor {governor}, at most {int(kilohertz or 0) / 1e6:.2f} GHz"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _run(*command: str) -> str | None:
    """What the command prints; None if it cannot be run, fails, or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def device_slug() -> str:
    """The device that computes, as part of a file's name."""
    if found := gpus():
        return slug(found[0].partition(",")[0])
    short = re.sub(r"\(R\)|\(TM\)|CPU|Processor|@.*", " ", cpu_model())
    return f"{slug(short)}-{cores()}-cores"
