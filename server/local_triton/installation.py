"""The tritonserver of the nvidia-pytriton wheel: where it lies, and what it needs to run here.

In: Triton's own Python environment (.venv-triton, filled by `make`) and a model repository. Out: a
backend folder, flags and environment variables; or a LocalTritonError that says what is missing
and what to do. Nothing in the wheel is changed.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from server.local_triton import stubs
from server.local_triton.command_line import ALL, RISKY
from server.local_triton.launch import Launch, LocalTritonError
from server.local_triton.repository import ODD, usable_path

BACKENDS = Path(__file__).resolve().parent / "backends"
CHECKOUT = Path(__file__).resolve().parents[2]
# Files that backends share with the engine without Triton: they make a session from a config.
SHARED = tuple(
    Path(module)
    for module in (
        "contracts/cpu.py",
        "server/engines/opening.py",
        "server/engines/onnxruntime/session.py",
        "server/engines/openvino/session.py",
    )
)
ELSEWHERE = "`docker compose up` runs Triton in a container instead"
# Triton gets only these variables of the caller: no secrets, no PYTHON*, no LD_PRELOAD.
PASSED_ON = (
    *("HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "JAX_PLATFORMS", "JAX_PYTHON"),
    "MIXER_ALLOW_CHANGED_MODELS",
)
OWN_BACKENDS = ("onnxruntime", "openvino", "jax")


@dataclass(frozen=True)
class Installation:
    """The parts of one environment that hold a tritonserver."""

    binary: Path
    python_backend: Path  # the folder of libtriton_python.so
    stub: Path  # the program that hosts one model instance in Python
    bin: Path  # its python3 is the one that the stub uses
    libraries: tuple[Path, ...]

    def variables(self) -> dict[str, str]:
        """The environment variables of tritonserver and of its stubs."""
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        # The backend can use the JAX of the launcher's Python, if there is one.
        return (
            {"JAX_PYTHON": sys.executable}
            | passed_on
            | {
                "PATH": f"{self.bin}:/usr/bin:/bin",
                "LD_LIBRARY_PATH": ":".join(map(str, self.libraries)),
                "ORT_DISABLE_TELEMETRY": "1",
            }
        )


def find(environment: Path) -> Installation:
    """Find the wheel's parts in a Python environment.

    Raises:
        LocalTritonError: this system cannot run them, or a part is missing.
    """
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}:
        raise LocalTritonError(
            f"the local Triton needs Linux on x86-64 or aarch64, this is {sys.platform} on "
            f"{platform.machine()}; {ELSEWHERE}"
        )
    libc, version = platform.libc_ver()
    if libc != "glibc" or tuple(map(int, version.split("."))) < (2, 35):
        raise LocalTritonError(
            f"the local Triton needs glibc 2.35 or later, this is {libc or 'another libc'} "
            f"{version}; {ELSEWHERE}"
        )
    # The folder of the interpreter tells its version: lib/python3.11/site-packages.
    for packages in sorted(environment.glob("lib/python3.*/site-packages")):
        minor = packages.parent.name.removeprefix("python")
        triton = packages / "pytriton/tritonserver"
        home = re.search(r"^home *= *(.+)$", (environment / "pyvenv.cfg").read_text(), re.MULTILINE)
        found = Installation(
            binary=triton / "bin/tritonserver",
            python_backend=triton / "backends/python",
            stub=triton / "python_backend_stubs" / minor / "triton_python_backend_stub",
            bin=environment / "bin",
            # The stub links libpython: the one of the environment's interpreter goes first, so that
            # stub and interpreter agree; if the environment has none, the system's is found.
            libraries=(
                *((Path(home[1]).parent / "lib",) if home else ()),
                packages / "nvidia_pytriton.libs",
            ),
        )
        if found.binary.is_file() and found.stub.is_file():
            return found
    raise LocalTritonError(
        f"no tritonserver in {environment}; `make serve` installs it there. {ELSEWHERE}"
    )


def make_backends(found: Installation, folder: Path) -> None:
    """Fill Triton's backend folder: the wheel's Python backend, and our backends on top of it.

    The files are copies, since Triton follows links and refuses a library outside its backend's
    folder.

    Raises:
        LocalTritonError: the stub cannot run here (no libpython, a folder that forbids programs…).
    """
    if any(ODD.search(part) for part in folder.parts[1:]):
        raise LocalTritonError(
            f"Triton's backends cannot be laid out in {folder}: its Python backend hands that path "
            "to a shell; set TMPDIR to a folder whose path has neither blanks nor quotation marks"
        )
    python = folder / "python"
    shutil.copytree(found.python_backend, python)
    stub = Path(shutil.copy(found.stub, python))
    stub.chmod(0o755)
    for name in OWN_BACKENDS:
        shutil.copytree(BACKENDS / name, folder / name, ignore=shutil.ignore_patterns("__*"))
        shutil.copy(BACKENDS / "standstill.py", folder / name)
    for name in ("onnxruntime", "openvino"):
        shutil.copy(BACKENDS / "batched.py", folder / name)
        for module in SHARED:
            copy = folder / name / module
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / module, copy)
    try:
        # Without arguments the stub only reports that they are missing: exit status 1. For failures
        # of the loader, above all a missing libpython, the status is 127.
        trial = subprocess.run(  # noqa: S603  (the program that Triton is about to start)
            [stub], env=found.variables(), capture_output=True, text=True, check=False, timeout=60
        )
    except OSError as error:
        raise LocalTritonError(
            f"cannot run a program in {folder} ({error.strerror}); set TMPDIR to a folder where "
            f"programs may run, or {ELSEWHERE}"
        ) from error
    if trial.returncode == 127:
        raise LocalTritonError(
            f"Triton's Python backend cannot start: {trial.stderr.strip()}; it needs the shared "
            f"library of Python {found.stub.parent.name} (on Debian and Ubuntu the package "
            f"libpython{found.stub.parent.name}); {ELSEWHERE}"
        )


class Wheel:
    """The wheel's tritonserver on one model repository: a `Program`."""

    def __init__(self, environment: Path, repository: Path, *, open_http: bool) -> None:
        """Find the wheel; raises LocalTritonError. With `open_http` HTTP needs no key."""
        self._found = find(environment)
        self._closed_http = RISKY if open_http else ALL
        self._repository = repository

    def prepare(self, folder: Path, prefix: str) -> Launch:
        """Make backends, and links if the repository needs them; raises LocalTritonError."""
        backends = folder / "backends"
        backends.mkdir()
        make_backends(self._found, backends)
        repository = usable_path(self._repository, folder)
        return Launch(
            binary=str(self._found.binary),
            repository=repository,
            flags=own_flags(backends, prefix),
            environment=self._found.variables(),
            needs_folder=repository.is_relative_to(folder),
            closed_http=self._closed_http,
        )

    def can_do_without(self, error: LocalTritonError) -> bool:  # noqa: ARG002 - as the base
        """False: only the models are served, so there is nothing to leave out."""
        return False

    def helpers(self, pid: int) -> list[int]:
        """Its stubs: if a model has lost one, Triton 2.51 never answers for that model again."""
        return stubs.children(pid)

    def cpu_seconds(self, pid: int, model: str | None) -> float | None:
        """CPU time of the stubs that run the model, or of tritonserver itself."""
        if model is None:
            return stubs.cpu_seconds([pid], with_children=False)
        return stubs.cpu_seconds(stubs.of_model(pid, model), with_children=True)


def own_flags(backends: Path, shared_memory_prefix: str) -> list[str]:
    """The flags that the wheel's tritonserver needs beside those of `command_line`."""
    return [
        f"--backend-directory={backends}",
        "--model-control-mode=none",
        "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0",  # of use to a GPU only
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix}",
        # A start on a busy machine may take longer than the 30 s that are Triton's default.
        "--backend-config=python,stub-timeout-seconds=120",
        "--log-verbose=0",
        "--log-format=ISO8601",
    ]
