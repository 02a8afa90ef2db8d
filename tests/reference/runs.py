"""What the tests of the reference share: small folders of images, and runs of its commands."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

CLASSES = ("dark", "light")
FLAGS = ("--variant", "mixer_testing", "--batch-size", "8", "--validation", "16")
# Runs compile the same programs again and again; what one has compiled, the next ones read.
_CACHE = tempfile.TemporaryDirectory(prefix="reference-compiled-")


def write_images(root: Path, training: int = 40, test: int = 4, size: int = 32) -> Path:
    """Two classes that brightness tells apart, so many images each; returns `root`."""
    random = np.random.default_rng(0)
    for split, count in (("train", training), ("test", test)):
        for name, mean in zip(CLASSES, (60, 190), strict=True):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.normal(mean, 20, (size, size, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def start(
    *arguments: str | Path, devices: int = 1, python_path: Path | None = None
) -> subprocess.Popen[str]:
    """`python -m reference ...` with so many virtual CPU devices.

    With a folder whose modules come before the installed ones, JAX looks for all that it knows.
    """
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        # Half of a test would be spent on making fast what runs for a second.
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
        "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": _CACHE.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if python_path is not None:
        environment |= {"PYTHONPATH": str(python_path), "JAX_PLATFORMS": ""}
        environment.pop("TPU_LIBRARY_PATH", None)  # which libtpu sets where JAX is imported: here
    return subprocess.Popen(
        [sys.executable, "-m", "reference", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for its end, at most some minutes."""
    with process:
        try:
            out, err = process.communicate(timeout=240)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(
    *arguments: str | Path, devices: int = 1, python_path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Start and finish."""
    return finish(start(*arguments, devices=devices, python_path=python_path))


def saved_step(out: Path) -> int:
    """The step that a run saved last; 0 where it saved none, or none is whole."""
    states = out.with_suffix(".checkpoints")
    entries = states.iterdir() if states.is_dir() else ()
    return max((int(entry.name) for entry in entries if entry.name.isdigit()), default=0)


def is_saving(out: Path) -> bool:
    """Whether a save is being written, or was when its run was killed."""
    return any("tmp" in entry.name for entry in out.with_suffix(".checkpoints").glob("*"))


def curve(out: Path) -> list[tuple[int, float]]:
    """Step and loss at the end of every epoch."""
    log = out.with_suffix(".log.jsonl")
    rows = map(json.loads, log.read_text().splitlines() if log.exists() else [])
    return [(row["step"], row["loss"]) for row in rows if "epoch" in row]


def arrays(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Everything in an `.npz` file."""
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}
