"""How a model's config.pbtxt becomes a session of ONNX Runtime: the same way in every engine.

In: the config as Triton's JSON, and the model's folder. Out: a session, or `SessionError` that says
what does not fit. The Triton of the nvidia-pytriton wheel gets a copy of this file and a copy of
opening.py.

From the config: the count of `instance_group`, and from `parameters` (string values, keys of
Triton's C++ backend) `intra_op_thread_count`, `inter_op_thread_count`, `execution_mode` (0
sequential, 1 parallel), `enable_mem_arena`, `enable_mem_pattern` (0 or 1); a key that begins with
`session.` goes to ONNX Runtime's session options as it is. Unlike the C++ backend's, its threads do
not spin between requests unless `session.intra_op.allow_spinning` is 1.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from contracts.cpu import cpu_flags, exact_products
from server.engines.opening import (
    CHECKPOINT,
    check_checkpoint,
    check_names,
    graph_path,
    input_name,
    number,
    parameters_of,
    thread_count,
)

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import onnxruntime

SPINNING = "session.intra_op.allow_spinning"


def open_session(
    config: dict[str, Any], folder: Path, version: str
) -> onnxruntime.InferenceSession:
    """The session of one version of the model in `folder`, on CPUs; arguments as `graph_path`.

    Raises:
        SessionError: what the config says is not what can be run, or not what the graph is.
        Exception: ONNX Runtime's own, for a graph that it cannot read; they have no common base.
    """
    input_name(config)
    session = onnxruntime.InferenceSession(
        graph_path(config, folder, version),
        session_options(config),
        providers=["CPUExecutionProvider"],
    )
    check_checkpoint(config, session.get_modelmeta().custom_metadata_map.get(CHECKPOINT))
    check_names("input", config, {tensor.name for tensor in session.get_inputs()})
    check_names("output", config, {tensor.name for tensor in session.get_outputs()})
    return session


def session_options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    """ONNX Runtime's options for one instance of the model; raises SessionError."""
    parameters = parameters_of(config)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count(config)
    options.inter_op_num_threads = number(parameters, "inter_op_thread_count", 0)
    mode = number(parameters, "execution_mode", 0, most=1)
    options.execution_mode = onnxruntime.ExecutionMode(mode)
    options.enable_cpu_mem_arena = number(parameters, "enable_mem_arena", 1, most=1) == 1
    options.enable_mem_pattern = number(parameters, "enable_mem_pattern", 1, most=1) == 1
    # Idle threads that spin, ONNX Runtime's default, take the CPU from the thread that accepts
    # requests.
    defaults = {SPINNING: "0"} | exact_products(cpu_flags())
    for key, value in (defaults | parameters).items():
        if key.startswith("session."):
            options.add_session_config_entry(key, value)
    return options
