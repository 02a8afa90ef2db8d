"""The engines that compute a model on CPUs: which is the default, and how config.pbtxt states one.

In: a precision and a CPU's flags, or a model's configuration. Out: the name of an engine, or the
configuration with another one. Every engine reads the same `model.onnx`. Export writes the default,
and `loadtest tune` what it has measured to be the fastest.
"""

from collections.abc import Collection

from contracts.cpu import int8_is_exact
from contracts.model_config import ModelConfig, model_config_pb2, parameters
from contracts.repository import HINT_BF16, ONNX_PATH

ONNXRUNTIME, OPENVINO, OPENVINO_BF16 = "onnxruntime", "openvino", "openvino-bf16"
ENGINES = (ONNXRUNTIME, OPENVINO, OPENVINO_BF16)
# The default engine by precision and flag of the CPU; in every other case it is ONNX Runtime. The
# measurements are in docs/performance.md, "The engine". An engine that rounds otherwise than the
# graph says, as openvino-bf16, is never a default: its gate has to be passed first.
DEFAULTS = {("int8", "amx_int8"): OPENVINO}

BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
# A parameter for the backend `openvino` of NVIDIA's image. Without it that backend refuses every
# batch smaller than `max_batch_size`; ours ignores it.
PADDING = "ENABLE_BATCH_PADDING"


def default_engine(precision: str, flags: Collection[str]) -> str:
    """The engine for a model in this precision on a CPU with these of contracts.cpu's flags."""
    found = (DEFAULTS[precision, flag] for flag in flags if (precision, flag) in DEFAULTS)
    return next(found, ONNXRUNTIME)


def stated_engine(config: ModelConfig) -> str:
    """One of ENGINES, or the name of another backend."""
    # `platform` is an older spelling of `backend`. Triton takes ONNX Runtime for a model.onnx for
    # which neither is stated.
    backend: str = config.backend or config.platform.partition("_")[0] or ONNXRUNTIME
    bf16 = parameters(config).get(HINT_BF16) == "YES"
    return OPENVINO_BF16 if backend == OPENVINO and bf16 else backend


def state_engine(config: ModelConfig, engine: str) -> None:
    """Let `config` ask for another one of ENGINES, in a form that NVIDIA's image reads as well."""
    config.backend, _, bf16 = engine.partition("-")
    config.ClearField("platform")
    changes = {HINT_BF16: "YES" if bf16 else None, PADDING: None}
    if config.backend == OPENVINO:
        changes[PADDING] = "YES"
        config.default_model_filename = config.default_model_filename or ONNX_PATH.name
        if not config.instance_group:
            config.instance_group.add(count=1)
        for group in config.instance_group:
            group.kind = model_config_pb2.ModelInstanceGroup.KIND_CPU
    for key, value in changes.items():
        if value is not None:
            config.parameters[key].string_value = value
        elif key in config.parameters:
            del config.parameters[key]


def engines_for(config: ModelConfig, flags: Collection[str]) -> list[str]:
    """The engines that can compute this model on a CPU with these flags, each in its own way.

    It is the stated one alone for models of other backends and for models that want a GPU.
    """
    own = stated_engine(config)
    gpu = model_config_pb2.ModelInstanceGroup.KIND_GPU
    if own not in ENGINES or any(group.kind == gpu for group in config.instance_group):
        return [own]
    if parameters(config).get("precision") == "int8" and not int8_is_exact(flags):
        # The backend for OpenVINO leaves such a model to ONNX Runtime.
        return [own]
    return [ONNXRUNTIME, OPENVINO, *([OPENVINO_BF16] if BF16_FLAGS & set(flags) else [])]
