"""The texts of `config.pbtxt`, one for each of Triton's backends, in protobuf's text format.

In: what is known of the model. Out: configurations that are complete, so that Triton never has to
guess (`--disable-auto-complete-config`). Both declare the same input, outputs and parameters.
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
"""

import dataclasses
import json
import re
from pathlib import Path

CONFIG_NAME, LABELS_NAME = "config.pbtxt", "labels.txt"
TENSORRT_CONFIG = Path("configs", "tensorrt.pbtxt")
ONNX_PATH, PLAN_PATH = Path("1", "model.onnx"), Path("1", "model.plan")

# Below so many per image a second thread takes longer to wake than it saves.
ONE_THREAD_FLOPS = 10_000_000


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What both configurations say."""

    name: str
    image_size: int  # pixels per side
    num_classes: int
    max_batch_size: int
    parameters: dict[str, str]  # resize rule and provenance


def onnxruntime_config(spec: ModelSpec) -> str:
    """`config.pbtxt`: ONNX Runtime, on the GPU where Triton has one, else on the CPU."""
    # Triton's default is two instances on a CPU, which would fight for the same cores.
    return f"""\
# Written by `python -m export`. Serve it with ONNX Runtime.
backend: "onnxruntime"
default_model_filename: "{ONNX_PATH.name}"
{_contract(spec)}
instance_group [ {{ count: 1 kind: KIND_AUTO }} ]
{_warmup(spec, [1])}
{_parameters(spec.parameters | _threads(spec))}"""


def tensorrt_config(spec: ModelSpec) -> str:
    """`configs/tensorrt.pbtxt`, for `tritonserver --model-config-name=tensorrt`."""
    sizes = graph_batch_sizes(spec.max_batch_size)
    graphs = "\n".join(
        _graph_spec(spec, size, previous + 1)
        for size, previous in zip(sizes, [0, *sizes], strict=False)
    )
    return f"""\
# Written by `python -m export`. Serve it with TensorRT: `python -m export --tensorrt {spec.name}`
# builds {PLAN_PATH}, and `tritonserver --model-config-name=tensorrt` reads this file.
backend: "tensorrt"
platform: "tensorrt_plan"
default_model_filename: "{PLAN_PATH.name}"
{_contract(spec)}
instance_group [ {{ count: 1 kind: KIND_GPU }} ]
# One CUDA graph for each power of two; a batch is run by the next larger one.
optimization {{
  cuda {{
    graphs: true
{graphs}
  }}
}}
{_warmup(spec, [1, spec.max_batch_size])}
{_parameters(spec.parameters)}"""


def graph_batch_sizes(max_batch_size: int) -> list[int]:
    """The batch sizes that CUDA graphs are captured for: powers of two, and the maximum."""
    powers = [2**power for power in range(max_batch_size.bit_length())]
    return sorted({*powers, max_batch_size})


def read_max_batch_size(config: str) -> int | None:
    """`max_batch_size` of a `config.pbtxt`, as the user may have edited it."""
    found = re.search(r"^\s*max_batch_size\s*:\s*(\d+)", config, re.MULTILINE)
    return int(found[1]) if found else None


def _contract(spec: ModelSpec) -> str:
    size = spec.image_size
    return f"""\
name: {_quote(spec.name)}
max_batch_size: {spec.max_batch_size}
input [ {{ name: "image" data_type: TYPE_UINT8 dims: [ {size}, {size}, 3 ] }} ]
output [
  {{
    name: "logits" data_type: TYPE_FP32 dims: [ {spec.num_classes} ]
    label_filename: "{LABELS_NAME}"
  }},
  {{
    name: "probabilities" data_type: TYPE_FP32 dims: [ {spec.num_classes} ]
    label_filename: "{LABELS_NAME}"
  }}
]
dynamic_batching {{ }}"""


def _threads(spec: ModelSpec) -> dict[str, str]:
    """Of ONNX Runtime, read by Triton's C++ backend and by this project's Python-based one."""
    small = int(spec.parameters.get("flops_per_image", ONE_THREAD_FLOPS)) < ONE_THREAD_FLOPS
    # 0 threads: as many as there are cores.
    return {"intra_op_thread_count": "1" if small else "0", "inter_op_thread_count": "1"}


def _warmup(spec: ModelSpec, batch_sizes: list[int]) -> str:
    size = spec.image_size
    samples = ",\n".join(
        f"""\
  {{
    name: "batch of {batch}" batch_size: {batch}
    inputs {{
      key: "image"
      value {{ data_type: TYPE_UINT8 dims: [ {size}, {size}, 3 ] random_data: true }}
    }}
  }}"""
        for batch in sorted(set(batch_sizes))
    )
    return f"model_warmup [\n{samples}\n]"


def _graph_spec(spec: ModelSpec, batch_size: int, lower_bound: int) -> str:
    size = spec.image_size
    shape = f'input {{ key: "image" value {{ dim: [ {size}, {size}, 3 ] }} }}'
    return f"""\
    graph_spec {{
      batch_size: {batch_size} {shape}
      graph_lower_bound {{ batch_size: {lower_bound} {shape} }}
    }}"""


def _parameters(parameters: dict[str, str]) -> str:
    return "".join(
        f"parameters {{ key: {_quote(key)} value {{ string_value: {_quote(value)} }} }}\n"
        for key, value in sorted(parameters.items())
    )


def _quote(text: str) -> str:
    # JSON escapes quotes and backslashes as protobuf's text format does; UTF-8 stays as it is.
    return json.dumps(text, ensure_ascii=False)
