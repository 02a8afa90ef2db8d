"""From a model's folder to a model that answers: read, checked, warmed up, probed.

In: the folder of one model in a repository as Triton has it. Out: a `Loaded`; or `LoadError` where
Triton would not load the model either, `ContractBroken` where only the gateway cannot use it.
"""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tritonclient.grpc import service_pb2

from contracts.labels import clean_served
from contracts.model_config import (
    ConfigError,
    ModelConfig,
    json_form,
    model_config_pb2,
    read_config,
)
from contracts.probing import fault_of, read_golden
from contracts.repository import CONFIG_NAME, INPUT, PROBABILITIES
from contracts.resizing import Pixels
from server.engines.contract import (
    extras_of,
    instances_of,
    parameters_of,
    rule_of,
    shape_of,
)
from server.engines.model import Model, Probabilities, check_distribution, probe_image
from server.engines.onnxruntime.folders import served_version
from server.engines.onnxruntime.session import open_session
from server.engines.opening import ALLOW_CHANGED, ChangedError, SessionError
from server.host.niceness import lower_priority
from server.problems import ContractBroken

logger = logging.getLogger(__name__)
BACKEND, PLATFORM, OPENVINO = "onnxruntime", "onnxruntime_onnx", "openvino"
# The types that a warm-up input may have; the first is that of the contract.
TYPES = {"TYPE_UINT8": np.uint8, "TYPE_FP32": np.float32}


class LoadError(Exception):
    """The model cannot be loaded; the message may name files, so it is for the log alone."""


class ChangedModelError(LoadError):
    """The model's graph was changed after its export."""


@dataclass(frozen=True)
class Loaded:
    """A model with its session, and the threads that run it: one for each instance."""

    model: Model
    session: onnxruntime.InferenceSession
    threads: ThreadPoolExecutor

    def run(self, images: Sequence[Pixels], extras: Sequence[str] = ()) -> Probabilities:
        """Probabilities float32[N, K] of N images uint8[H, W, 3]; raises `ContractBroken`.

        Each row has the outputs `extras` behind its probabilities.
        """
        return probabilities(self.session, np.stack(images), extras)


def load(folder: Path) -> Loaded:
    """Load the model in `folder`; this takes seconds, so call it in a thread.

    Raises `LoadError` or `ContractBroken`.
    """
    name = folder.name
    try:
        config = read_config(folder / CONFIG_NAME)
        version = served_version(folder, config)
    except (ConfigError, OSError) as error:
        raise LoadError(str(error)) from None
    if reason := _why_not(name, config, version):
        raise LoadError(reason)
    instances = instances_of(config)
    # The threads of a session have the priority of the thread that opens it.
    threads = ThreadPoolExecutor(instances, f"{name}", initializer=lower_priority)
    try:
        session = threads.submit(_open, config, folder, str(version)).result()
        model = threads.submit(_read, name, str(version), config, folder, session).result()
    except BaseException:
        threads.shutdown(wait=False)
        raise
    return Loaded(model, session, threads)


def _why_not(name: str, config: ModelConfig, version: str | None) -> str | None:
    if config.name not in ("", name):
        return f"its config.pbtxt names it {config.name!r}"
    if config.backend == OPENVINO:
        # Its folder has the same graph, and ONNX Runtime gives the answers of its export.
        logger.info("model %s: ONNX Runtime computes it; only Triton has OpenVINO", name)
    elif config.backend != BACKEND and config.platform != PLATFORM:
        return (
            f"it is for the backend {config.backend or config.platform!r}, and without Triton "
            f"there is {BACKEND!r} alone"
        )
    gpu = model_config_pb2.ModelInstanceGroup.KIND_GPU
    if any(group.kind == gpu for group in config.instance_group):
        return "its instances want a GPU (KIND_GPU), which Triton alone uses"
    if version is None:
        return "it has no folder of a version that its config.pbtxt serves"
    return None


def _open(config: ModelConfig, folder: Path, version: str) -> onnxruntime.InferenceSession:
    try:
        return open_session(json_form(config), folder, version)
    except ChangedError as error:
        raise ChangedModelError(str(error)) from None
    except SessionError as error:
        raise LoadError(str(error)) from None
    except Exception as error:  # ONNX Runtime's have no common base
        raise LoadError(str(error)) from error


def _read(
    name: str,
    version: str,
    config: ModelConfig,
    folder: Path,
    session: onnxruntime.InferenceSession,
) -> Model:
    """Check the model against its contract, warm it up and let it answer once."""
    metadata = _metadata(config)
    height, width, classes = shape_of(name, metadata)
    rule = rule_of(name, height, width, config)
    for warmup in config.model_warmup:
        _warm_up(warmup, folder, session)
    answer = probabilities(session, probe_image(height, width)[None])[0]
    check_distribution(name, answer, parameters_of(config))
    if os.environ.get(ALLOW_CHANGED) != "1":
        _check_golden(name, answer, folder)
    if len(answer) != classes:
        raise ContractBroken(f"model {name!r} declares {classes} classes and answers {len(answer)}")
    return Model(
        name=name,
        version=version,
        rule=rule,
        classes=classes,
        max_batch_size=config.max_batch_size,
        instances=instances_of(config),
        parameters=parameters_of(config),
        labels=_labels(folder, config, classes),
        expected=answer,
        extras=extras_of(metadata, classes),
    )


def _check_golden(name: str, answer: Probabilities, folder: Path) -> None:
    """Compare the answer with the one that the model gave at its export, on whichever CPU."""
    try:
        fault = fault_of(answer.tolist(), read_golden(folder))
    except ValueError as error:
        raise LoadError(str(error)) from None
    if fault is not None:
        raise ContractBroken(f"the answer of model {name!r} to its probe {fault}")


def _metadata(config: ModelConfig) -> service_pb2.ModelMetadataResponse:
    """The metadata that Triton would give: the tensors, with the batch as their first axis."""
    metadata = service_pb2.ModelMetadataResponse(name=config.name)
    batch = [-1] if config.max_batch_size > 0 else []
    for declared, tensors in ((config.input, metadata.inputs), (config.output, metadata.outputs)):
        for each in declared:
            kind = model_config_pb2.DataType.Name(each.data_type).removeprefix("TYPE_")
            tensors.add(name=each.name, datatype=kind, shape=[*batch, *each.dims])
    return metadata


def _labels(folder: Path, config: ModelConfig, classes: int) -> list[str]:
    """The lines of the file that the output names; for a class without a line, its number."""
    files = [each.label_filename for each in config.output if each.name == PROBABILITIES]
    lines: list[str] = []
    if files and files[0]:
        try:
            text = (folder / files[0]).read_bytes().decode("utf-8", "replace")
        except OSError as error:
            raise LoadError(f"{files[0]}: {error.strerror}") from None
        lines = text.split("\n")
    padded = [*lines, *[""] * classes][:classes]
    return [label or str(index) for index, label in enumerate(clean_served(padded))]


def _warm_up(
    warmup: model_config_pb2.ModelWarmup, folder: Path, session: onnxruntime.InferenceSession
) -> None:
    """Run one entry of `model_warmup`, as often as it says."""
    random = np.random.default_rng(0)
    for key, given in warmup.inputs.items():
        kind = TYPES.get(model_config_pb2.DataType.Name(given.data_type))
        if key != INPUT or kind is None:
            raise LoadError(
                f"warm-up {warmup.name!r} has {model_config_pb2.DataType.Name(given.data_type)} "
                f"for {key!r}, expected TYPE_UINT8 for {INPUT!r}"
            )
        shape = (max(1, warmup.batch_size), *given.dims)
        images: npt.NDArray[Any] = np.zeros(shape, kind)
        if given.random_data:
            images = random.integers(0, 256, shape).astype(kind)
        elif given.input_data_file:
            try:
                data = (folder / "warmup" / given.input_data_file).read_bytes()
                images = np.frombuffer(data, kind).reshape(shape)
            except (OSError, ValueError) as error:
                raise LoadError(f"warm-up {warmup.name!r}: {error}") from None
        for _ in range(max(1, warmup.count)):
            probabilities(session, images)


def probabilities(
    session: onnxruntime.InferenceSession, images: npt.NDArray[Any], extras: Sequence[str] = ()
) -> Probabilities:
    """float32[N, K] of uint8[N, H, W, 3], and `extras` behind; raises `ContractBroken`."""
    names = [PROBABILITIES, *extras]
    try:
        answers: list[Probabilities] = session.run(names, {INPUT: images})
    except Exception as error:  # ONNX Runtime's have no common base
        raise ContractBroken(f"ONNX Runtime refused the images: {error}") from error
    for name, answer in zip(names, answers, strict=True):
        if answer.dtype != np.float32 or answer.ndim != 2 or len(answer) != len(images):
            raise ContractBroken(
                f"the model answered {name} {answer.dtype}{list(answer.shape)}, expected "
                f"float32[{len(images)}, K]"
            )
    return np.concatenate(answers, axis=1) if extras else answers[0]
