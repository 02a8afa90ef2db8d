"""TensorRT engines of a model repository's models, built with the trtexec of NVIDIA's image.

In: a model with a configs/tensorrt.pbtxt, and the GPU of this machine. Out: a folder with its
`model.plan`, or an EngineError that says why there is no engine. The name of the folder states all
that an engine depends on: TensorRT's release, the GPU's kind and the graph. The folder appears
whole or not at all.
"""

import asyncio
import hashlib
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from contracts.repository import TENSORRT_CONFIG
from deploy.triton import text_format

log = logging.getLogger(__name__)

CONFIG = TENSORRT_CONFIG.stem  # the value of --model-config-name
PLAN = "model.plan"
HEARTBEAT_S = 10.0
LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu")


class EngineError(Exception):
    """There is no engine; the message says why."""


@dataclass(frozen=True)
class Model:
    """One folder of the repository."""

    folder: Path
    version: Path  # the newest

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @property
    def tensorrt_config(self) -> Path:
        """The file with the model's configuration for the TensorRT backend."""
        return self.folder / TENSORRT_CONFIG


async def gpu() -> str:
    """The compute capability of this machine's GPUs, as "9.0"; raises EngineError."""
    try:
        process = await asyncio.create_subprocess_exec(
            *("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"),
            stdout=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise EngineError("no NVIDIA GPU is visible in this container") from error
    output, _ = await process.communicate()
    kinds = sorted(set(output.decode().split()))
    if process.returncode or not kinds:
        raise EngineError("nvidia-smi finds no GPU")
    if len(kinds) > 1:
        raise EngineError(
            f"the GPUs are of several kinds ({', '.join(kinds)}), and an engine fits one; "
            "let NVIDIA_VISIBLE_DEVICES name those of one kind"
        )
    return kinds[0]


def release() -> str:
    """The releases of TensorRT and Triton in this image; an engine works with no other release."""
    found = [path.name for folder in LIBRARIES for path in Path(folder).glob("libnvinfer.so.*.*.*")]
    tensorrt = found[0].removeprefix("libnvinfer.so.") if found else "unknown"
    return f"{tensorrt}-{os.environ.get('NVIDIA_TRITON_SERVER_VERSION', 'unknown')}"


def key(model: Model, capability: str) -> str:
    """The name of the folder that keeps the engine."""
    digest = hashlib.sha256()
    for path in (*sorted(model.version.glob("model.onnx*")), model.tensorrt_config):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{model.name}-{release()}-sm{capability}-{digest.hexdigest()[:24]}"


def trtexec_flags(model: Model, plan: Path) -> list[str]:
    """The flags for trtexec; none of them sets the precision, which is in the graph."""
    try:
        config = text_format.parse(model.tensorrt_config.read_text(encoding="utf-8"))
        batch = text_format.integer(config["max_batch_size"][-1])
        (image,) = map(text_format.fields, config["input"])
        name = image["name"][-1]
        dims = "x".join(str(text_format.integer(size)) for size in image["dims"])
    except (OSError, ValueError, LookupError) as error:
        raise EngineError(
            f"{model.tensorrt_config} does not declare a max_batch_size and one input with name "
            f"and dims: {error!r}"
        ) from error
    return [
        f"--onnx={model.version / 'model.onnx'}",
        "--stronglyTyped",  # the only mode of TensorRT 11; TensorRT 10 needs the flag
        f"--saveEngine={plan}",
        f"--minShapes={name}:1x{dims}",
        f"--optShapes={name}:{batch}x{dims}",
        f"--maxShapes={name}:{batch}x{dims}",
        "--skipInference",
    ]


async def build(trtexec: Path, model: Model, folder: Path, position: str) -> None:
    """Build the engine into `folder`, which appears whole or not at all; raises EngineError."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    began = time.monotonic()
    what = f"engine {position}, {model.name}"
    log.info("%s: building", what)
    try:
        timing = folder.parent / "timing.cache"
        process = await asyncio.create_subprocess_exec(
            *(str(trtexec), *trtexec_flags(model, partial / PLAN), f"--timingCacheFile={timing}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            last = await _follow(process, what, began)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode or not (partial / PLAN).is_file():
            raise EngineError(f"trtexec ended with {process.returncode}: {last}")
        megabytes = (partial / PLAN).stat().st_size / 1e6
        try:
            partial.rename(folder)
        except OSError:
            if not (folder / PLAN).is_file():  # else another container has built it first
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log.info("%s: %.0f MB in %.0f s", what, megabytes, time.monotonic() - began)


async def _follow(process: asyncio.subprocess.Process, what: str, began: float) -> str:
    """Log trtexec's output, and a line now and then while there is none; returns its last error."""
    assert process.stdout is not None  # noqa: S101  (stdout is a pipe; this line is for the type checker)
    last = ""
    read = asyncio.ensure_future(process.stdout.readline())
    while True:
        await asyncio.wait({read}, timeout=HEARTBEAT_S)
        if not read.done():
            log.info("%s: building for %.0f s", what, time.monotonic() - began)
            continue
        line = read.result().decode(errors="replace").rstrip()
        if not read.result():
            await process.wait()
            return last
        log.info("trtexec: %s", line)
        last = line if "[E]" in line or not last else last
        read = asyncio.ensure_future(process.stdout.readline())
