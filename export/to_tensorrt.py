"""TensorRT: from a published `model.onnx` to an engine for one kind of GPU.

In: a model's folder in the repository. Out: `1/model.plan`, which Triton serves with
`--model-config-name=tensorrt`, or the command that builds it inside Triton's container. Networks
are strongly typed: precision is in the graph, so there is no flag for it here.

The same code uses both editions of TensorRT. The data-centre edition (`tensorrt`) builds on the
machine with the GPU, and Triton serves its engines. TensorRT for RTX compiles ahead of time,
without a GPU. Triton cannot load the engines of this edition, but a build shows whether TensorRT
accepts the graph.
"""

import dataclasses
import importlib
import importlib.util
import shlex
from ctypes import CDLL, RTLD_GLOBAL
from pathlib import Path
from types import ModuleType

from rich.progress import Progress, TaskID

from contracts.model_config import ConfigError, read_config
from contracts.repository import CONFIG_NAME, INPUT, ONNX_PATH, PLAN_PATH
from export.progress import console

# Every release from 26.06 on contains TensorRT 11.
TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:26.08-py3"
# The wheel that carries the libraries of TensorRT for RTX (its bindings come without them).
_RTX_LIBRARIES = "onnxruntime_ep_nv_tensorrt_rtx"


class TensorRTError(Exception):
    """There is no engine; the message says why, if possible with TensorRT's own message."""


@dataclasses.dataclass(frozen=True)
class Edition:
    """An importable TensorRT."""

    module: ModuleType
    name: str  # "tensorrt" or "tensorrt_rtx"

    @property
    def label(self) -> str:
        """The edition's name for people."""
        title = "TensorRT for RTX" if self.name == "tensorrt_rtx" else "TensorRT"
        return f"{title} {self.module.__version__}"


@dataclasses.dataclass(frozen=True)
class Source:
    """The parts of a published model from which an engine is built."""

    name: str
    onnx: Path
    image_size: int  # pixels per side
    max_batch_size: int

    def shape(self, batch: int) -> tuple[int, int, int, int]:
        """The shape of the input `image` at a batch size."""
        return batch, self.image_size, self.image_size, 3


def find_edition() -> Edition | None:
    """The TensorRT of this environment, the data-centre edition first."""
    for name in ("tensorrt", "tensorrt_rtx"):
        if importlib.util.find_spec(name) is not None:
            return Edition(importlib.import_module(name), name)
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        return None
    libraries = importlib.util.find_spec(_RTX_LIBRARIES)
    if libraries is None or not libraries.submodule_search_locations:
        return None
    folder = Path(libraries.submodule_search_locations[0])
    for pattern in ("libtensorrt_rtx.so.*", "libtensorrt_onnxparser_rtx.so.*"):
        # Loaded globally, so that the bindings find their symbols without a search path.
        CDLL(str(next(folder.glob(pattern))), mode=RTLD_GLOBAL)
    return Edition(importlib.import_module("tensorrt_rtx_bindings"), "tensorrt_rtx")


def read_source(repository: Path, name: str) -> Source:
    """Find a published model; raises TensorRTError."""
    folder = repository / name
    config, path = folder / CONFIG_NAME, folder / ONNX_PATH
    for file in (config, path):
        if not file.is_file():
            raise TensorRTError(f"{file} is missing: publish {name!r} into {repository} first")
    try:
        stated = read_config(config)
    except ConfigError as error:
        raise TensorRTError(str(error)) from None
    if stated.max_batch_size < 1:
        raise TensorRTError(f"{config}: expected a max_batch_size of at least 1")
    size = next((each.dims[0] for each in stated.input if each.name == INPUT and each.dims), 0)
    if size < 1:
        raise TensorRTError(f"{config}: expected the input {INPUT!r} with dims [ H, W, 3 ]")
    return Source(name, path, size, stated.max_batch_size)


def container_command(repository: Path, source: Source) -> str:
    """The shell command that builds the engine inside Triton's image, with the TensorRT there."""
    folder = f"/models/{source.name}"
    plan = f"{folder}/{PLAN_PATH}"

    def shape(batch: int) -> str:
        return f"{INPUT}:{'x'.join(map(str, source.shape(batch)))}"

    # --stronglyTyped is the only mode of TensorRT 11; TensorRT 10 needs the flag. The file is
    # renamed at the end, so that Triton never sees half an engine.
    build = (
        f"/usr/src/tensorrt/bin/trtexec --onnx={folder}/{ONNX_PATH} --stronglyTyped "
        f"--saveEngine={plan}.partial --minShapes={shape(1)} "
        f"--optShapes={shape(source.max_batch_size)} --maxShapes={shape(source.max_batch_size)} "
        f"--skipInference && mv {plan}.partial {plan}"
    )
    mount = shlex.quote(f"{repository.resolve()}:/models")
    return f"docker run --rm --gpus all -v {mount} {TRITON_IMAGE} bash -c {shlex.quote(build)}"


def build_engine(edition: Edition, source: Source) -> bytes:
    """Parse and build, with progress on the terminal.

    Raises TensorRTError, with TensorRT's own message, for a graph that it refuses.
    """
    trt = edition.module
    messages: list[str] = []
    logger = _logger(trt, messages)
    builder = trt.Builder(logger)
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source.onnx)):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise TensorRTError(_refusal(edition, source, errors + messages))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    largest = source.shape(source.max_batch_size)
    profile.set_shape(INPUT, source.shape(1), largest, largest)
    config.add_optimization_profile(profile)
    with Progress(console=console, transient=True) as progress:
        config.progress_monitor = _monitor(trt, progress)
        engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise TensorRTError(_refusal(edition, source, messages))
    return bytes(engine)


def _refusal(edition: Edition, source: Source, messages: list[str]) -> str:
    # On a machine without a GPU every other error comes with a message about the driver.
    telling = [text for text in messages if "CUDA driver version" not in text] or messages
    return f"{edition.label} refuses {source.onnx}: {'; '.join(dict.fromkeys(telling))}"


def _logger(trt: ModuleType, messages: list[str]) -> object:
    # The base class depends on the edition, which mypy cannot follow; the same holds for `Monitor`.
    class Logger(trt.ILogger):  # type: ignore[misc, name-defined] # of either edition
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, text: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                messages.append(text.strip())

    return Logger()


def _monitor(trt: ModuleType, progress: Progress) -> object:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined] # likewise
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._tasks: dict[str, TaskID] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            indent = "  " if parent else ""
            self._tasks[name] = progress.add_task(f"{indent}{name}", total=steps)

        def step_complete(self, name: str, step: int) -> bool:
            progress.update(self._tasks[name], completed=step)
            return True  # False would stop the build

        def phase_finish(self, name: str) -> None:
            progress.remove_task(self._tasks.pop(name))

    return Monitor()
