"""OpenVINO in the local Triton: the graphs of ONNX Runtime, their answers, on every kind of CPU."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tritonclient import grpc

from contracts.cpu import cpu_flags
from contracts.model_config import config_text, read_config
from server.local_triton.supervisor import LocalTriton
from tests import exported
from tests.stack import DEFAULT_MODEL, running_triton
from tests.waiting import CHECKOUT

SHIPPED = CHECKOUT / "model_repository" / DEFAULT_MODEL


def served_by(backend: str, source: Path, target: Path, **parameters: str) -> None:
    """A copy of a model's folder, for another backend and with more parameters."""
    shutil.copytree(source, target)
    path = target / "config.pbtxt"
    config = read_config(path)
    config.name, config.backend = target.name, backend
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    path.write_text(config_text(config))


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    folder = tmp_path_factory.mktemp("openvino")
    repository = folder / "repository"
    made = exported.published_int8("mixer_tiny", folder / "made")
    for backend in ("onnxruntime", "openvino"):
        served_by(backend, SHIPPED, repository / f"{backend}_fp32")
        served_by(backend, made, repository / f"{backend}_int8")
    served_by("openvino", SHIPPED, repository / "openvino_bf16", HINT_BF16="YES")
    served_by("openvino", SHIPPED, repository / "maybe", HINT_BF16="MAYBE")
    served_by("openvino", SHIPPED, repository / "changed", graph_sha256="0" * 64)
    served_by("openvino", made, repository / "other", checkpoint_sha256="0" * 64)
    served_by("openvino", SHIPPED, repository / "threads", intra_op_thread_count="many")
    with running_triton(repository) as running:
        yield running


def logits(
    triton: LocalTriton, model: str, images: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    with grpc.InferenceServerClient(triton.grpc_url) as client:
        tensor = grpc.InferInput("image", list(images.shape), "UINT8")
        tensor.set_data_from_numpy(images)
        answer: npt.NDArray[np.float32] = client.infer(model, [tensor]).as_numpy("logits")
    return answer


def noise(size: int, count: int = 8) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def test_fp32_is_that_of_onnx_runtime(triton: LocalTriton) -> None:
    """On a CPU with bfloat16 too, which OpenVINO would take by itself."""
    images = noise(32)
    expected = logits(triton, "onnxruntime_fp32", images)
    assert np.abs(logits(triton, "openvino_fp32", images) - expected).max() <= 1e-5
    assert expected.std() > 0.5


def test_bf16_is_near_and_is_bf16_where_the_cpu_has_it(triton: LocalTriton) -> None:
    images = noise(32)
    expected = logits(triton, "onnxruntime_fp32", images)
    off = np.abs(logits(triton, "openvino_bf16", images) - expected).max()
    has = {"avx512_bf16", "amx_bf16"} & set(cpu_flags())
    assert off <= 0.03 * np.abs(expected).max()
    assert (off > 1e-4) == bool(has)


def test_int8_is_as_near_to_the_original_as_onnx_runtime_s(triton: LocalTriton) -> None:
    images, expected = exported.golden_logits("mixer_tiny")
    for backend in ("onnxruntime", "openvino"):
        answer = logits(triton, f"{backend}_int8", images)
        assert 1e-4 < np.abs(answer - expected).max() <= 0.25, backend


@pytest.mark.parametrize("model", ["openvino_fp32", "openvino_bf16", "openvino_int8"])
def test_an_answer_does_not_depend_on_the_rest_of_its_batch(
    triton: LocalTriton, model: str
) -> None:
    size = exported.golden_logits("mixer_tiny")[0].shape[1] if "int8" in model else 32
    images = noise(size)
    together = logits(triton, model, images)
    for index in range(len(images)):
        alone = logits(triton, model, images[index : index + 1])
        # Sums may be rounded in another order, and then an activation by one step.
        allowed = {"openvino_fp32": 1e-5}.get(model, 0.02)
        assert np.abs(alone[0] - together[index]).max() <= allowed
    brighter = np.concatenate([images[:4], np.full_like(images[:4], 255)])
    assert np.abs(logits(triton, model, brighter)[:4] - together[:4]).max() <= 1e-5


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("maybe", "parameter HINT_BF16 is 'MAYBE'; YES or NO is expected"),
        ("changed", "model.onnx was changed after its export"),
        ("other", "it names a checkpoint whose SHA-256 begins with 0000000000000000"),
        ("threads", "parameter intra_op_thread_count is 'many'; a whole number"),
    ],
)
def test_what_does_not_fit_is_said(triton: LocalTriton, model: str, reason: str) -> None:
    with grpc.InferenceServerClient(triton.grpc_url) as client:
        assert not client.is_model_ready(model)
        index = {each.name: each for each in client.get_model_repository_index().models}
    assert reason in index[model].reason
