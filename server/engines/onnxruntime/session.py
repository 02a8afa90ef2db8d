"""How a model's config.pbtxt becomes a session of ONNX Runtime: the same way in every engine.

In: the config as Triton's JSON, and the model's folder. Out: a session, or `SessionError` that says
what does not fit. The gateway imports this module; the Triton of the nvidia-pytriton wheel gets a
copy beside its backend, so it imports nothing of this project.

From the config: the count of `instance_group`, and from `parameters` (string values, keys of
Triton's C++ backend) `intra_op_thread_count`, `inter_op_thread_count`, `execution_mode` (0
sequential, 1 parallel), `enable_mem_arena`, `enable_mem_pattern` (0 or 1); a key that begins with
`session.` goes to ONNX Runtime's session options as it is. Unlike the C++ backend's, its threads do
not spin between requests unless `session.intra_op.allow_spinning` is 1.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import onnxruntime

ALLOW_CHANGED = "MIXER_ALLOW_CHANGED_MODELS"
CHECKPOINT = "checkpoint_sha256"  # in the config's parameters, and in the graph's own metadata
SPINNING = "session.intra_op.allow_spinning"
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "QUOTA PERIOD" in µs, or "max PERIOD"


class SessionError(ValueError):
    """The model cannot be run; the message says why."""


class ChangedError(SessionError):
    """The graph is not the one that was exported."""


def open_session(
    config: dict[str, Any], folder: Path, version: str
) -> onnxruntime.InferenceSession:
    """The session of one version of the model in `folder`, on CPUs.

    Args:
        config: Triton's `model_config` in its JSON form.
        folder: The model's own folder, with a folder for each version.
        version: The name of that folder.

    Raises:
        SessionError: what the config says is not what can be run, or not what the graph is.
        Exception: ONNX Runtime's own, for a graph that it cannot read; they have no common base.
    """
    input_name(config)
    path = str(folder / version / (config.get("default_model_filename") or "model.onnx"))
    # Encoded here: the Python in Triton takes file names for ASCII, whatever the locale says.
    if not os.path.isfile(path.encode()):  # noqa: PTH113 - bytes, as above
        raise SessionError(f"{path} is missing")
    _check_digest(config, path)
    session = onnxruntime.InferenceSession(
        path, session_options(config), providers=["CPUExecutionProvider"]
    )
    _check_checkpoint(config, session)
    _check_names(config, session)
    return session


def input_name(config: dict[str, Any]) -> str:
    """The name of the only input; raises SessionError if there are others."""
    inputs = [tensor["name"] for tensor in config["input"]]
    if len(inputs) != 1:
        raise SessionError(f"config.pbtxt declares the inputs {inputs}; one is expected")
    name: str = inputs[0]
    return name


def session_options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    """ONNX Runtime's options for one instance of the model; raises SessionError."""
    parameters: dict[str, str] = {
        key: value["string_value"] for key, value in config.get("parameters", {}).items()
    }

    def number(key: str, default: int, most: int = 1024) -> int:
        value = parameters.get(key, str(default))
        if not (value.isascii() and value.isdigit() and int(value) <= most):
            raise SessionError(
                f"parameter {key} is {value!r}; a whole number from 0 to {most} is expected"
            )
        return int(value)

    instances = sum(group.get("count", 1) for group in config.get("instance_group", [{}]))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = number("intra_op_thread_count", 0) or max(
        1, available_cores() // max(1, instances)
    )
    options.inter_op_num_threads = number("inter_op_thread_count", 0)
    options.execution_mode = onnxruntime.ExecutionMode(number("execution_mode", 0, most=1))
    options.enable_cpu_mem_arena = number("enable_mem_arena", 1, most=1) == 1
    options.enable_mem_pattern = number("enable_mem_pattern", 1, most=1) == 1
    # Idle threads that spin, ONNX Runtime's default, take the CPU from whoever accepts requests.
    for key, value in ({SPINNING: "0"} | parameters).items():
        if key.startswith("session."):
            options.add_session_config_entry(key, value)
    return options


def _check_digest(config: dict[str, Any], path: str) -> None:
    """Refuse a graph that is not the one that was exported; one without a digest is taken as it is.

    As `contracts.repository.graph_digest`, which Triton's environment does not have.
    """
    expected = config.get("parameters", {}).get("graph_sha256", {}).get("string_value")
    folder, name = os.path.split(path.encode())
    # The digest is that of the graph; an engine was built from it afterwards.
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


def _check_checkpoint(config: dict[str, Any], session: onnxruntime.InferenceSession) -> None:
    """Refuse a graph of other weights than config.pbtxt names; one that names none is taken."""
    stated = config.get("parameters", {}).get(CHECKPOINT, {}).get("string_value")
    found = session.get_modelmeta().custom_metadata_map.get(CHECKPOINT)
    if not stated or not found or stated == found or os.environ.get(ALLOW_CHANGED) == "1":
        return
    raise ChangedError(
        "config.pbtxt was changed after its export: it names a checkpoint whose SHA-256 begins "
        f"with {stated[:16]}, the graph is of one with {found[:16]}; export it again, or serve it "
        f"all the same with {ALLOW_CHANGED}=1"
    )


def available_cores() -> int:
    """The CPU cores that this process may use: its affinity, cut by its container's quota."""
    # macOS and Windows bind no process to some of the cores.
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = CPU_MAX.read_text().split()
    except OSError:  # not cgroup v2, or the root of its tree: no quota
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _check_names(config: dict[str, Any], session: onnxruntime.InferenceSession) -> None:
    """Refuse a graph whose inputs and outputs are not those that config.pbtxt declares."""
    for kind, tensors in (("input", session.get_inputs()), ("output", session.get_outputs())):
        declared = {tensor["name"] for tensor in config[kind]}
        found = {tensor.name for tensor in tensors}
        if not declared <= found:
            raise SessionError(
                f"config.pbtxt declares the {kind}s {sorted(declared)}, "
                f"model.onnx has {sorted(found)}"
            )
