"""What every engine on CPUs reads from a model's folder and config before it opens the graph.

In: the config as Triton's JSON, and the model's folder. Out: the graph's path, its input, the
number of threads; or `SessionError` that says what does not fit. The gateway imports this module;
the Triton of the nvidia-pytriton wheel gets a copy with its backends, in an environment without
this project, so it imports only the standard library.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

ALLOW_CHANGED = "MIXER_ALLOW_CHANGED_MODELS"
CHECKPOINT = "checkpoint_sha256"  # in the config's parameters, and in the graph's own metadata
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "QUOTA PERIOD" in µs, or "max PERIOD"


class SessionError(ValueError):
    """The model cannot be run; the message says why."""


class ChangedError(SessionError):
    """The graph is not the one that was exported."""


def graph_path(config: dict[str, Any], folder: Path, version: str) -> str:
    """The graph of one version of the model in `folder`; raises SessionError.

    Args:
        config: Triton's `model_config` in its JSON form.
        folder: The model's own folder, with a folder for each version.
        version: The name of that folder.
    """
    path = str(folder / version / (config.get("default_model_filename") or "model.onnx"))
    # Encoded here: the Python in Triton takes file names for ASCII, whatever the locale says.
    if not os.path.isfile(path.encode()):  # noqa: PTH113 - bytes, as above
        raise SessionError(f"{path} is missing")
    _check_digest(config, path)
    return path


def input_name(config: dict[str, Any]) -> str:
    """The name of the only input; raises SessionError if there are others."""
    inputs = [tensor["name"] for tensor in config["input"]]
    if len(inputs) != 1:
        raise SessionError(f"config.pbtxt declares the inputs {inputs}; one is expected")
    name: str = inputs[0]
    return name


def parameters_of(config: dict[str, Any]) -> dict[str, str]:
    """The `parameters` of config.pbtxt."""
    return {key: value["string_value"] for key, value in config.get("parameters", {}).items()}


def number(parameters: dict[str, str], key: str, default: int, most: int = 1024) -> int:
    """A parameter that is a whole number; raises SessionError."""
    value = parameters.get(key, str(default))
    if not (value.isascii() and value.isdigit() and int(value) <= most):
        raise SessionError(
            f"parameter {key} is {value!r}; a whole number from 0 to {most} is expected"
        )
    return int(value)


def thread_count(config: dict[str, Any]) -> int:
    """Threads of one instance: `intra_op_thread_count`; with 0 the instances share the cores."""
    instances = sum(group.get("count", 1) for group in config.get("instance_group", [{}]))
    asked = number(parameters_of(config), "intra_op_thread_count", 0)
    return asked or max(1, available_cores() // max(1, instances))


def available_cores() -> int:
    """The CPU cores that this process may use: its affinity, limited by its container's quota."""
    # macOS and Windows do not bind a process to some of the cores.
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = CPU_MAX.read_text().split()
    except OSError:  # not cgroup v2, or the root of its tree: no quota
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def check_names(kind: str, config: dict[str, Any], found: set[str]) -> None:
    """Refuse a graph whose inputs or outputs (`kind`) are not those that config.pbtxt declares."""
    declared = {tensor["name"] for tensor in config[kind]}
    if not declared <= found:
        raise SessionError(
            f"config.pbtxt declares the {kind}s {sorted(declared)}, model.onnx has {sorted(found)}"
        )


def check_checkpoint(config: dict[str, Any], found: str | None) -> None:
    """Refuse a graph of other weights than config.pbtxt names, if both state their weights.

    `found` is CHECKPOINT of the graph's own metadata.
    """
    stated = parameters_of(config).get(CHECKPOINT)
    if not stated or not found or stated == found or os.environ.get(ALLOW_CHANGED) == "1":
        return
    raise ChangedError(
        "config.pbtxt was changed after its export: it names a checkpoint whose SHA-256 begins "
        f"with {stated[:16]}, the graph is of one with {found[:16]}; export it again, or serve it "
        f"all the same with {ALLOW_CHANGED}=1"
    )


def _check_digest(config: dict[str, Any], path: str) -> None:
    """Refuse a graph that was changed after its export, if config.pbtxt has the graph's digest.

    Computes the digest as `contracts.repository.graph_digest`, which Triton's environment lacks.
    """
    expected = parameters_of(config).get("graph_sha256")
    folder, name = os.path.split(path.encode())
    # The digest is that of the ONNX graph; a TensorRT engine was built from the graph afterwards.
    if not expected or name == b"model.plan" or os.environ.get(ALLOW_CHANGED) == "1":
        return
    digest = hashlib.sha256()
    for part in sorted(each for each in os.listdir(folder) if each.startswith(name)):  # noqa: PTH208 - bytes
        with open(os.path.join(folder, part), "rb") as file:  # noqa: PTH118, PTH123 - of bytes
            while piece := file.read(1 << 20):
                digest.update(piece)
    if digest.hexdigest() != expected:
        raise ChangedError(
            f"{name.decode()} was changed after its export: its SHA-256 begins with "
            f"{digest.hexdigest()[:16]}, that in config.pbtxt with {expected[:16]}; export it "
            f"again, or serve it all the same with {ALLOW_CHANGED}=1"
        )
