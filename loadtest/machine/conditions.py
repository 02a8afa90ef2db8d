"""What a number depends on: the machine, the versions, the day.

Out: plain text by name, which stands above every table of the report and in the file's name.
"""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

from loadtest import CHECKOUT

TRITON_PACKAGES = sorted((CHECKOUT / ".venv-triton").glob("lib/python3.*/site-packages"))
PACKAGES = ("torch", "jax", "onnx", "fastapi", "uvicorn", "pillow", "numpy")


def conditions() -> dict[str, str]:
    """This machine, now."""
    found = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{cpu_model()}, {cores()} cores",
        "gpu": gpu(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "load_average_before": f"{os.getloadavg()[0]:.2f}",
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


def now() -> str:
    """Day and time (UTC) as part of a file's name."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d-%H%M")


def cores() -> int:
    """Cores that this process, and the servers that it starts, may use."""
    # macOS and Windows bind no process to some of the cores.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's own name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return names[0] if names else platform.machine()


def gpu() -> str:
    """The GPUs that nvidia-smi lists, or "none"."""
    command = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "none"
    return "; ".join(done.stdout.split("\n")).strip("; ") or "none"


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def device_slug() -> str:
    """The device that computes, as part of a file's name."""
    found = gpu()
    if found != "none":
        return slug(found.partition(",")[0])
    short = re.sub(r"\(R\)|\(TM\)|CPU|Processor|@.*", " ", cpu_model())
    return f"{slug(short)}-{cores()}-cores"
