"""The whole classifier as a program of XLA, by `jax.export`: it needs no code of this project.

In: a checkpoint of any family. Out: a model folder for Triton, NAME/1/model.jax beside
NAME/config.pbtxt for the Python-based backend `jax`: uint8 images [N, H, W, 3] to float32 `logits`
and `probabilities` [N, K], for every batch size, on CPU, TPU and CUDA. The version of JAX that
wrote a file can read it, and so can later versions: StableHLO promises six months of backward
compatibility.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import export

from contracts.labels import labels_text, read_labels
from contracts.model_config import (
    ModelConfig,
    config_text,
    model_config_pb2,
    parameters,
    read_config,
)
from reference import checkpoint, models
from reference.augment import normalise
from reference.config import ConfigError
from reference.teacher import open_onnx

PLATFORMS = ("cpu", "tpu", "cuda")
PROGRAM, ABOUT = "model.jax", "model.json"
TEMPERATURE = "temperature"  # the parameter of config.pbtxt
TOLERANCE = 1e-5  # of probabilities, against the same network in ONNX


@dataclasses.dataclass(frozen=True)
class Written:
    """The result of `serialize`."""

    folder: Path
    bytes: int
    largest_difference: float | None  # of probabilities, against the ONNX; None without an ONNX


def serialize(
    file: Path,
    name: str,
    repository: Path,
    *,
    labels: Path | None = None,
    image_size: int | None = None,
    max_batch_size: int = 32,
    onnx: Path | None = None,
) -> Written:
    """Write the model folder NAME. Raises CheckpointError, LabelsError or ConfigError.

    With an ONNX of the same classifier, nothing is written unless both give the same probabilities.
    If the export has calibrated the ONNX, the program gets the same temperature.
    """
    pretrained = models.read(file)
    size = image_size or pretrained.image_size or 224
    if pretrained.image_size not in (None, size):
        raise ConfigError(f"image_size: {file} was trained at {pretrained.image_size}, not {size}")
    folder = repository / name
    if folder.exists():
        raise ConfigError(f"name: {folder} exists; remove it, or choose another --name")
    names = (
        read_labels(labels, pretrained.num_classes)
        if labels
        else [f"class {index}" for index in range(pretrained.num_classes)]
    )
    temperature = 1.0 if onnx is None else temperature_of(onnx)
    program = program_of(pretrained, size, temperature)
    difference = None if onnx is None else compare(program, onnx, size)
    if difference is not None and not difference <= TOLERANCE:
        raise ConfigError(
            f"onnx: {onnx} gives other probabilities, by up to {difference:.1e}; the limit is "
            f"{TOLERANCE:.0e}"
        )
    about = {
        "jax": jax.__version__,
        "calling_convention_version": program.calling_convention_version,
        "platforms": program.platforms,
    }
    config = _config(name, size, pretrained.num_classes, max_batch_size)
    stated = _parameters(file, pretrained, difference)
    if temperature != 1:
        stated[TEMPERATURE] = f"{temperature:.6g}"
    for key, value in stated.items():
        config.parameters[key].string_value = value
    content = bytes(program.serialize())
    with checkpoint.atomically(folder / "1" / PROGRAM) as target:
        target.write(content)
    checkpoint.write_text(folder / "1" / ABOUT, json.dumps(about, indent=1) + "\n")
    checkpoint.write_text(folder / "labels.txt", labels_text(names))
    head = ["Written by `python -m reference serialize`."]
    checkpoint.write_text(
        folder / "config.pbtxt", config_text(config, head)
    )  # Triton expects this file
    return Written(folder, len(content), difference)


def temperature_of(onnx: Path) -> float:
    """The temperature, which divides the logits before the softmax, from the config.pbtxt.

    It is 1 if the model folder's config.pbtxt states none, or if there is no such file. Raises
    ConfigError.
    """
    file = onnx.parent.parent / "config.pbtxt"
    if not file.exists():
        return 1.0
    try:
        stated = parameters(read_config(file)).get(TEMPERATURE, "1")
        return float(stated)
    except ValueError as error:
        raise ConfigError(f"onnx: {error}") from None


def program_of(
    pretrained: models.Pretrained, image_size: int, temperature: float = 1.0
) -> export.Exported:
    """The classifier, with its weights inside."""
    model = models.build(pretrained.config, pretrained.num_classes)

    def classify(images: jax.Array) -> dict[str, jax.Array]:
        # Full float32, also on TPUs and NVIDIA's GPUs, which round more by default.
        with jax.default_matmul_precision("float32"):
            logits = models.apply(model, pretrained.params, normalise(images))
        return {"logits": logits, "probabilities": jax.nn.softmax(logits / temperature)}

    (count,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((count, image_size, image_size, 3), jnp.uint8)
    return export.export(jax.jit(classify), platforms=PLATFORMS)(images)


def compare(program: export.Exported, onnx: Path, image_size: int) -> float:
    """The largest difference of probabilities on random images, at three batch sizes.

    Raises ConfigError if the ONNX cannot be read.
    """
    session = open_onnx(onnx, "onnx")
    random, largest = np.random.default_rng(0), 0.0
    for count in (1, 3, 8):
        shape = (count, image_size, image_size, 3)
        images: npt.NDArray[np.uint8] = random.integers(0, 256, shape, np.uint8)
        expected = session.run(["probabilities"], {"image": images})[0]
        found = program.call(images)["probabilities"]
        largest = max(largest, float(np.max(np.abs(np.asarray(found) - expected))))
    return largest


def _config(name: str, size: int, classes: int, max_batch_size: int) -> ModelConfig:
    config = ModelConfig(name=name, backend="jax", max_batch_size=max_batch_size)
    pixels, floats = model_config_pb2.TYPE_UINT8, model_config_pb2.TYPE_FP32
    config.input.add(name="image", data_type=pixels, dims=[size, size, 3])
    for output in ("logits", "probabilities"):
        config.output.add(
            name=output, data_type=floats, dims=[classes], label_filename="labels.txt"
        )
    config.dynamic_batching.SetInParent()  # dynamic batching, with its default values
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    config.default_model_filename = PROGRAM
    return config


def _parameters(
    file: Path, pretrained: models.Pretrained, difference: float | None
) -> dict[str, str]:
    found: dict[str, Any] = {
        "family": pretrained.config.family,
        "variant": models.name_of(pretrained.config),
        "precision": "fp32",
        "random_weights": "false",
        "checkpoint": file.name,
        "checkpoint_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "exported_with": f"jax {jax.__version__}",
        "resize": "squash",
        "interpolation": "bilinear",
        "antialias": "true",
        "crop_fraction": "1.0",
    }
    if difference is not None:
        found["parity_max_abs_probability_diff"] = f"{difference:.2e}"
    return {key: str(value) for key, value in found.items()}
