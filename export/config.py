"""The configurations of a published model, one for each of Triton's backends.

In: the facts about the model. Out: complete configurations, so that Triton never has to guess
(`--disable-auto-complete-config`). Both declare the same input, outputs and parameters.
"""

import dataclasses

from contracts.cpu_engines import ONNXRUNTIME, state_engine
from contracts.model_config import ModelConfig, config_text, model_config_pb2
from contracts.repository import (
    EMBEDDING,
    INPUT,
    LABELS_NAME,
    LOGITS,
    ONNX_PATH,
    PLAN_PATH,
    PROBABILITIES,
)

# Below so many FLOPs per image, waking a second thread takes longer than the time it saves.
ONE_THREAD_FLOPS = 10_000_000


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The facts that both configurations state."""

    name: str
    image_size: int  # pixels per side
    num_classes: int
    max_batch_size: int
    parameters: dict[str, str]  # resize rule and provenance
    embedding_size: int | None = None  # D; None: the graph has no such output
    engine: str = ONNXRUNTIME  # of a Triton for CPUs


def onnxruntime_config(spec: ModelSpec) -> str:
    """`config.pbtxt`: ONNX Runtime, on the GPU where Triton has one, else on the CPU; or OpenVINO.

    OpenVINO computes on the CPU in any case.
    """
    config = _contract(spec)
    config.backend, config.default_model_filename = "onnxruntime", ONNX_PATH.name
    # Triton's default is two instances on a CPU, which would compete for the same cores.
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_AUTO)
    _add_warmup(config, spec, [1])
    _add_parameters(config, spec.parameters | _threads(spec))
    served_with = "ONNX Runtime"
    if spec.engine != ONNXRUNTIME:
        state_engine(config, spec.engine)
        served_with = "OpenVINO"
    return config_text(config, [f"Written by `python -m export`. Serve it with {served_with}."])


def tensorrt_config(spec: ModelSpec) -> str:
    """`configs/tensorrt.pbtxt`, for `tritonserver --model-config-name=tensorrt`."""
    config = _contract(spec)
    config.backend, config.platform = "tensorrt", "tensorrt_plan"
    config.default_model_filename = PLAN_PATH.name
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_GPU)
    # One CUDA graph for each power of two; a batch is run by the graph of the next larger size.
    cuda = config.optimization.cuda
    cuda.graphs = True
    below = 0
    for size in graph_batch_sizes(spec.max_batch_size):
        graph = cuda.graph_spec.add(batch_size=size)
        graph.input[INPUT].dim.extend(_shape(spec))
        graph.graph_lower_bound.batch_size = below + 1
        graph.graph_lower_bound.input[INPUT].dim.extend(_shape(spec))
        below = size
    _add_warmup(config, spec, [1, spec.max_batch_size])
    _add_parameters(config, spec.parameters)
    head = [
        "Written by `python -m export`. Serve it with TensorRT: "
        f"`python -m export --tensorrt {spec.name}`",
        f"builds {PLAN_PATH}, and `tritonserver --model-config-name=tensorrt` reads this file.",
    ]
    return config_text(config, head)


def graph_batch_sizes(max_batch_size: int) -> list[int]:
    """The batch sizes that CUDA graphs are captured for: powers of two, and the maximum."""
    powers = [2**power for power in range(max_batch_size.bit_length())]
    return sorted({*powers, max_batch_size})


def _contract(spec: ModelSpec) -> ModelConfig:
    config = ModelConfig(name=spec.name, max_batch_size=spec.max_batch_size)
    pixels, floats = model_config_pb2.TYPE_UINT8, model_config_pb2.TYPE_FP32
    config.input.add(name=INPUT, data_type=pixels, dims=_shape(spec))
    for name in (LOGITS, PROBABILITIES):
        config.output.add(
            name=name, data_type=floats, dims=[spec.num_classes], label_filename=LABELS_NAME
        )
    if spec.embedding_size is not None:
        config.output.add(name=EMBEDDING, data_type=floats, dims=[spec.embedding_size])
    config.dynamic_batching.SetInParent()  # dynamic batching, with its default values
    return config


def _shape(spec: ModelSpec) -> list[int]:
    return [spec.image_size, spec.image_size, 3]


def _threads(spec: ModelSpec) -> dict[str, str]:
    """The threads of ONNX Runtime; both backends read them: Triton's in C++ and ours in Python."""
    small = int(spec.parameters.get("flops_per_image", ONE_THREAD_FLOPS)) < ONE_THREAD_FLOPS
    # 0 means as many threads as there are cores.
    return {"intra_op_thread_count": "1" if small else "0", "inter_op_thread_count": "1"}


def _add_warmup(config: ModelConfig, spec: ModelSpec, batch_sizes: list[int]) -> None:
    for batch in sorted(set(batch_sizes)):
        sample = config.model_warmup.add(name=f"batch of {batch}", batch_size=batch)
        pixels = sample.inputs[INPUT]
        pixels.data_type, pixels.random_data = model_config_pb2.TYPE_UINT8, True
        pixels.dims.extend(_shape(spec))


def _add_parameters(config: ModelConfig, parameters: dict[str, str]) -> None:
    for key, value in parameters.items():
        config.parameters[key].string_value = value
