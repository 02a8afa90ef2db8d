"""The engine that is the default on a CPU, and how config.pbtxt states another one."""

import pytest

from contracts.cpu_engines import (
    ENGINES,
    default_engine,
    engines_for,
    state_engine,
    stated_engine,
)
from contracts.model_config import parse_config

# As contracts.cpu names them: an Intel Xeon (Sapphire Rapids), an AMD EPYC (Zen 4), a Haswell, and
# a CPU for arm64.
XEON = ["avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx_vnni", "avx512_vnni", "amx_int8"]
ZEN_4 = ["avx2", "avx512f", "avx512_bf16", "avx512_vnni"]
HASWELL = ["avx2"]
ARM: list[str] = []
REST = """
name: "m" max_batch_size: 8 default_model_filename: "model.onnx"
input { name: "image" data_type: TYPE_UINT8 dims: [ 8, 8, 3 ] }
output { name: "logits" data_type: TYPE_FP32 dims: 10 label_filename: "labels.txt" }
dynamic_batching { max_queue_delay_microseconds: 250 } model_warmup { name: "w" batch_size: 1 }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "precision" value { string_value: "fp32" } }
"""
INT8 = REST.replace('"fp32"', '"int8"')
# What NVIDIA's backend needs of the form is in the README of triton-inference-server/
# openvino_backend: HINT_BF16 takes no value but YES, without ENABLE_BATCH_PADDING small batches are
# refused, instances are on a CPU, and model.onnx is not the file that it would look for.
OPENVINO = f"""{REST} backend: "openvino" instance_group {{ count: 2 kind: KIND_CPU }}
parameters {{ key: "ENABLE_BATCH_PADDING" value {{ string_value: "YES" }} }}"""
BF16 = 'parameters { key: "HINT_BF16" value { string_value: "YES" } }'
WRITTEN = {
    "onnxruntime": f'{REST} backend: "onnxruntime" instance_group {{ count: 2 kind: KIND_CPU }}',
    "openvino": OPENVINO,
    "openvino-bf16": f"{OPENVINO} {BF16}",
}


@pytest.mark.parametrize(
    ("flags", "int8"),
    [(XEON, "openvino"), (ZEN_4, "onnxruntime"), (HASWELL, "onnxruntime"), (ARM, "onnxruntime")],
)
def test_the_default_follows_precision_and_cpu(flags: list[str], int8: str) -> None:
    assert default_engine("int8", flags) == int8
    assert default_engine("fp32", flags) == default_engine("fp16", flags) == "onnxruntime"


@pytest.mark.parametrize("before", ENGINES)
@pytest.mark.parametrize("after", ENGINES)
def test_another_engine_is_stated_and_all_else_is_kept(before: str, after: str) -> None:
    config = parse_config(WRITTEN[before])
    assert stated_engine(config) == before
    state_engine(config, after)
    assert config == parse_config(WRITTEN[after])


def test_what_a_configuration_leaves_out_is_added() -> None:
    config = parse_config('name: "m" platform: "onnxruntime_onnx"')
    assert stated_engine(config) == "onnxruntime"
    state_engine(config, "openvino")
    assert config == parse_config(
        'name: "m" backend: "openvino" default_model_filename: "model.onnx" '
        "instance_group { count: 1 kind: KIND_CPU } "
        'parameters { key: "ENABLE_BATCH_PADDING" value { string_value: "YES" } }'
    )


@pytest.mark.parametrize(
    ("text", "flags", "engines"),
    [
        (WRITTEN["onnxruntime"], XEON, list(ENGINES)),
        (WRITTEN["openvino"], ZEN_4, list(ENGINES)),
        (WRITTEN["onnxruntime"], HASWELL, ["onnxruntime", "openvino"]),
        (f'{INT8} backend: "onnxruntime"', XEON, list(ENGINES)),
        ('backend: "jax"', XEON, ["jax"]),
        ('backend: "onnxruntime" instance_group { kind: KIND_GPU }', XEON, ["onnxruntime"]),
    ],
)
def test_only_engines_that_can_compute_the_model_are_tried(
    text: str, flags: list[str], engines: list[str]
) -> None:
    assert engines_for(parse_config(text), flags) == engines


def test_int8_is_left_to_onnx_runtime_where_openvino_would_cut_products_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = parse_config(f'{INT8} backend: "onnxruntime"')
    monkeypatch.setattr("contracts.cpu.platform.machine", lambda: "x86_64")
    assert engines_for(config, HASWELL) == ["onnxruntime"]
    monkeypatch.setattr("contracts.cpu.platform.machine", lambda: "aarch64")
    assert engines_for(config, ARM) == ["onnxruntime", "openvino"]
