"""A Triton backend, written in Python, that serves NAME/VERSION/model.onnx with ONNX Runtime.

It bears the name of NVIDIA's C++ backend, `onnxruntime`, and reads the same config.pbtxt, so that a
model repository made for NVIDIA's image is also served by a Triton that has only the Python
backend. In: the requests of one dynamic batch, each with one tensor whose first axis is the batch.
Out: one response per request with the outputs that it asked for. Triton starts one process of this
module per instance, in an environment of its own (Python, numpy < 2, onnxruntime).

From the model's config: the count of `instance_group`, and from `parameters` (string values, keys
of the C++ backend) `intra_op_thread_count`, `inter_op_thread_count`, `execution_mode` (0
sequential, 1 parallel), `enable_mem_arena`, `enable_mem_pattern` (0 or 1); a key that begins with
`session.` goes to ONNX Runtime's session options as it is. Unlike the C++ backend's, its threads do
not spin between requests unless `session.intra_op.allow_spinning` is 1, and they run at a lower
priority than Triton itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

ALLOW_CHANGED = "MIXER_ALLOW_CHANGED_MODELS"
SPINNING = "session.intra_op.allow_spinning"
# Added to Triton's: what takes requests in runs before what computes, and so can refuse in time.
NICENESS = 10
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "QUOTA PERIOD" in µs, or "max PERIOD"


class TritonPythonModel:
    """One instance of one model; the class that Triton's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model.

        Args:
            args: Triton's `model_config` (JSON), `model_repository` (the model's own folder),
                `model_version` and more.

        Raises:
            pb_utils.TritonModelException: the model cannot be served; Triton reports the message.
        """
        if int(np.__version__.split(".")[0]) >= 2:
            # With numpy 2 this release of the Python backend returns empty outputs, silently.
            raise pb_utils.TritonModelException(
                f"Triton's environment has numpy {np.__version__}, its Python backend needs < 2"
            )
        config = json.loads(args["model_config"])
        inputs = [tensor["name"] for tensor in config["input"]]
        if len(inputs) != 1:
            raise pb_utils.TritonModelException(
                f"config.pbtxt declares the inputs {inputs}; one is expected"
            )
        self._input: str = inputs[0]
        file = config.get("default_model_filename") or "model.onnx"
        path = f"{args['model_repository']}/{args['model_version']}/{file}"
        # Encoded here, since the stub's Python takes file names for ASCII whatever the locale says.
        if not os.path.isfile(path.encode()):  # noqa: PTH113
            raise pb_utils.TritonModelException(f"{path} is missing")
        check_digest(config, path)
        os.nice(NICENESS)
        self._session = onnxruntime.InferenceSession(
            path, session_options(config), providers=["CPUExecutionProvider"]
        )
        check_names(config, self._session)

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        """Run one dynamic batch; an exception here is Triton's error answer to each request."""
        images = [
            pb_utils.get_input_tensor_by_name(request, self._input).as_numpy()
            for request in requests
        ]
        wanted = [request.requested_output_names() for request in requests]
        names = list({name for request_names in wanted for name in request_names})
        batch = images[0] if len(images) == 1 else np.concatenate(images)
        outputs = dict(zip(names, self._session.run(names, {self._input: batch}), strict=True))
        responses = []
        start = 0
        for image, request_names in zip(images, wanted, strict=True):
            stop = start + len(image)
            tensors = [pb_utils.Tensor(name, outputs[name][start:stop]) for name in request_names]
            responses.append(pb_utils.InferenceResponse(tensors))
            start = stop
        return responses


def check_digest(config: dict[str, Any], path: str) -> None:
    """Refuse a graph that is not the one that was exported; one without a digest is taken as it is.

    As `contracts.repository.graph_digest`, which this environment does not have.
    """
    expected = config.get("parameters", {}).get("graph_sha256", {}).get("string_value")
    if not expected or os.environ.get(ALLOW_CHANGED) == "1":
        return
    folder, name = os.path.split(path.encode())
    digest = hashlib.sha256()
    for part in sorted(each for each in os.listdir(folder) if each.startswith(name)):  # noqa: PTH208
        with open(os.path.join(folder, part), "rb") as file:  # noqa: PTH118, PTH123 - of bytes
            while piece := file.read(1 << 20):
                digest.update(piece)
    if digest.hexdigest() != expected:
        raise pb_utils.TritonModelException(
            f"{name.decode()} was changed after its export: its SHA-256 begins with "
            f"{digest.hexdigest()[:16]}, that in config.pbtxt with {expected[:16]}; export it "
            f"again, or serve it all the same with {ALLOW_CHANGED}=1"
        )


def session_options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    """ONNX Runtime's options for one instance of the model that `config` (JSON form) describes."""
    parameters: dict[str, str] = {
        key: value["string_value"] for key, value in config.get("parameters", {}).items()
    }

    def number(key: str, default: int, most: int = 1024) -> int:
        value = parameters.get(key, str(default))
        if not (value.isascii() and value.isdigit() and int(value) <= most):
            raise pb_utils.TritonModelException(
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
    # Idle threads that spin, ONNX Runtime's default, take the CPU from the gateway and from Triton.
    for key, value in ({SPINNING: "0"} | parameters).items():
        if key.startswith("session."):
            options.add_session_config_entry(key, value)
    return options


def available_cores() -> int:
    """The CPU cores that this process may use: its affinity, cut by its container's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = CPU_MAX.read_text().split()
    except OSError:  # not cgroup v2, or the root of its tree: no quota
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def check_names(config: dict[str, Any], session: onnxruntime.InferenceSession) -> None:
    """Refuse a graph whose inputs and outputs are not those that config.pbtxt declares."""
    for kind, tensors in (("input", session.get_inputs()), ("output", session.get_outputs())):
        declared = {tensor["name"] for tensor in config[kind]}
        found = {tensor.name for tensor in tensors}
        if not declared <= found:
            raise pb_utils.TritonModelException(
                f"config.pbtxt declares the {kind}s {sorted(declared)}, "
                f"model.onnx has {sorted(found)}"
            )
