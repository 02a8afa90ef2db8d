"""Engines: built once, kept in a cache, compared with ONNX Runtime, put beside the model.

In: a published model. Out: `1/model.plan`, or the reason why there is none. An engine is bound to
one release of TensorRT and one kind of GPU, so both are part of the cache's key.
"""

import hashlib
import os
import tempfile
from ctypes import CDLL, byref, c_int
from pathlib import Path

import numpy as np
import torch

from contracts.repository import INPUT, LOGITS, PLAN_PATH
from export.graph import open_graph
from export.parity import Logits, Pixels, probe_images
from export.progress import note, step
from export.to_tensorrt import (
    Edition,
    Source,
    TensorRTError,
    build_engine,
    container_command,
    find_edition,
    read_source,
)

# As a share of the largest logit. An engine and ONNX Runtime round differently: FP32 products run
# as TF32 (11 bits, as FP16), and fused layers keep other intermediate precisions.
TOLERANCE = 0.02


def publish_engine(repository: Path, name: str) -> None:
    """--tensorrt: build a published model's engine, or print the command; raises TensorRTError."""
    source = read_source(repository, name)
    command = container_command(repository, source)
    edition = find_edition()
    if edition is None:
        note("no TensorRT in this environment; this builds the engine inside Triton's container:")
        print(command)
        return
    with step(f"building with {edition.label}"):
        engine, cached = cached_engine(edition, source)
    origin = "from the cache" if cached else "built"
    print(f"{edition.label} takes {source.onnx}: {len(engine) / 1e6:.1f} MB, {origin}")
    if edition.name == "tensorrt_rtx":
        note("Triton does not read engines of TensorRT for RTX; this builds one that it reads:")
        print(command)
        return
    if torch.cuda.is_available():
        with step("comparing with ONNX Runtime"):
            difference = compare(edition, source, engine)
        print(f"logits within {difference:.2g} of ONNX Runtime's")
    else:
        note("this PyTorch has no CUDA, so the engine's logits were not compared")
    target = repository / name / PLAN_PATH
    write_whole(target, engine)
    print(f"published {target}: serve it with tritonserver --model-config-name=tensorrt")


def compare(edition: Edition, source: Source, engine: bytes) -> float:
    """The engine's largest difference of a logit on this GPU; raises TensorRTError if too large."""
    images = probe_images(source.image_size, min(4, source.max_batch_size))
    expected = open_graph(source.onnx).run([LOGITS], {INPUT: images})[0]
    logits = run_engine(edition, engine, images)
    difference = float(np.abs(logits - expected).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not difference <= allowed:  # so that NaN fails too
        raise TensorRTError(
            f"the engine's logits differ from ONNX Runtime's by {difference:.2g}, allowed is "
            f"{allowed:.2g}; it was not published"
        )
    return difference


def run_engine(edition: Edition, engine: bytes, images: Pixels) -> Logits:
    """The logits, float32 [N, K], that an engine gives on the first GPU."""
    trt = edition.module
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        raise TensorRTError(f"{edition.label} cannot load the engine that it built")
    context = loaded.create_execution_context()
    pixels = torch.from_numpy(images).cuda()
    names = [loaded.get_tensor_name(index) for index in range(loaded.num_io_tensors)]
    answers = {
        name: torch.empty(len(images), loaded.get_tensor_shape(name)[1], device="cuda")
        for name in names
        if name != INPUT
    }
    context.set_input_shape(INPUT, tuple(pixels.shape))
    for name, tensor in {INPUT: pixels, **answers}.items():
        context.set_tensor_address(name, tensor.data_ptr())
    if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
        raise TensorRTError(f"{edition.label} cannot run the engine that it built")
    logits: Logits = answers[LOGITS].cpu().numpy()
    return logits


def cached_engine(edition: Edition, source: Source) -> tuple[bytes, bool]:
    """The engine, and whether it was built before: engines of large models take minutes."""
    path = _cache_folder() / f"{cache_key(edition, source)}.plan"
    if path.is_file():
        return path.read_bytes(), True
    engine = build_engine(edition, source)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, engine)
    return engine, False


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).rename(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def compute_capability() -> str | None:
    """The compute capability of the first GPU, as "9.0"; None without a GPU or a driver."""
    try:
        cuda = CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = c_int(), c_int(), c_int()
    # cuda.h: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR is 75, …_MINOR 76.
    if (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(byref(device), 0)
        or cuda.cuDeviceGetAttribute(byref(major), 75, device)
        or cuda.cuDeviceGetAttribute(byref(minor), 76, device)
    ):
        return None
    return f"{major.value}.{minor.value}"


def _cache_folder() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "mixer-serving" / "tensorrt"


def cache_key(edition: Edition, source: Source) -> str:
    """Everything that the engine depends on."""
    digest = hashlib.sha256()
    for path in sorted(source.onnx.parent.glob(f"{source.onnx.name}*")):  # external data too
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    version = edition.module.__version__
    capability = compute_capability() or "any"
    batch = source.max_batch_size
    return f"{edition.name}-{version}-sm{capability}-b{batch}-{digest.hexdigest()[:24]}"
