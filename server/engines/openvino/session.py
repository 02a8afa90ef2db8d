"""How OpenVINO compiles a model by its config.pbtxt, from the same graph as ONNX Runtime's.

In: the config as Triton's JSON, and the model's folder. Out: a `Session`, or `SessionError` that
says what does not fit. It runs in the Triton of the nvidia-pytriton wheel, in a copy.

From the config: the count of `instance_group`, and from `parameters` `intra_op_thread_count`, as
with ONNX Runtime, and `HINT_BF16`, as with Triton's C++ backend of the name `openvino`: YES
computes the FP32 operations of the graph in bfloat16, on CPUs that can. Without YES they are
computed in FP32, although OpenVINO's own default is bfloat16 wherever the CPU has it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

try:
    import openvino
except ImportError:  # Triton's environment has none, as one made before this backend
    openvino = None

from contracts.cpu import cpu_flags, int8_is_exact
from server.engines.onnxruntime.session import open_session as open_with_onnxruntime
from server.engines.opening import (
    CHECKPOINT,
    SessionError,
    check_checkpoint,
    check_names,
    graph_path,
    input_name,
    parameters_of,
    thread_count,
)

BF16 = "HINT_BF16"  # as in contracts.repository, which Triton's environment lacks
# The operation that rounds an activation to 8 bits in OpenVINO's form of a graph.
ROUNDING = "FakeQuantize"


class Session:
    """One instance of a compiled model; one call at a time."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._request = compiled.create_infer_request()

    def run(
        self, names: Sequence[str], inputs: dict[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[Any]]:
        """The outputs of these names, as ONNX Runtime's `run` gives them."""
        # OpenVINO reads the array without a copy if its memory is contiguous.
        feeds = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        self._request.infer(feeds, share_inputs=True)
        # The next call overwrites the tensors of the request.
        return [self._request.get_tensor(name).data.copy() for name in names]


def open_session(
    config: dict[str, Any], folder: Path, version: str
) -> Session | onnxruntime.InferenceSession:
    """One version of the model in `folder`, compiled for this CPU; arguments as `graph_path`.

    On an x86-64 CPU without VNNI OpenVINO's 8-bit products are cut off, and answers are wrong by
    more than the model's gate allowed. On such a CPU ONNX Runtime opens a model in INT8: it can
    avoid the error. It opens every model where there is no OpenVINO.

    Raises:
        SessionError: what the config says is not what can be run, or not what the graph is.
        RuntimeError: OpenVINO's own, for a graph that it cannot read.
    """
    input_name(config)
    properties = compile_properties(config)
    path = graph_path(config, folder, version)
    if openvino is None:
        print(f"{path}: no OpenVINO here, so ONNX Runtime computes it", file=sys.stderr)
        return open_with_onnxruntime(config, folder, version)
    core = openvino.Core()
    model = core.read_model(path)
    if _is_int8(model) and not int8_is_exact(cpu_flags()):
        print(f"{path}: INT8 on a CPU without VNNI, so ONNX Runtime computes it", file=sys.stderr)
        return open_with_onnxruntime(config, folder, version)
    metadata = ["framework", CHECKPOINT]  # where OpenVINO keeps the metadata of an ONNX graph
    named = model.get_rt_info(metadata).value if model.has_rt_info(metadata) else None
    check_checkpoint(config, named)
    for kind, tensors in (("input", model.inputs), ("output", model.outputs)):
        check_names(kind, config, {name for tensor in tensors for name in tensor.get_names()})
    return Session(core.compile_model(model, "CPU", properties))


def compile_properties(config: dict[str, Any]) -> dict[str, Any]:
    """OpenVINO's properties for one instance of the model; raises SessionError."""
    bf16 = parameters_of(config).get(BF16, "NO")
    if bf16 not in {"YES", "NO"}:
        raise SessionError(f"parameter {BF16} is {bf16!r}; YES or NO is expected")
    properties: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": thread_count(config),
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 == "YES" else "f32",
        # Instances and the gateway share the cores: the system places threads, as for ONNX Runtime.
        "ENABLE_CPU_PINNING": False,
    }
    return properties


def _is_int8(model: openvino.Model) -> bool:
    return any(operation.get_type_name() == ROUNDING for operation in model.get_ops())
