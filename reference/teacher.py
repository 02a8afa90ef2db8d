"""A classifier to learn from: consistent and patient teaching (arXiv 2106.05237).

In: a checkpoint (.npz) of any of the three families, or an exported classifier (.onnx). Out: its
logits, computed in every step for exactly the pixels that the student gets: the same crops, with
the same mirroring and mixing.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from reference import models
from reference.config import ConfigError


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Computes a teacher's logits.

    The parameters are an argument of every call, so that no compiled program contains them.
    """

    params: optax.Params  # {} for an ONNX teacher
    num_classes: int
    image_size: int | None  # pixels per side; None if the teacher takes any size
    answer: Callable[[optax.Params, jax.Array], jax.Array]

    def logits(self, params: optax.Params, inputs: jax.Array) -> jax.Array:
        """Float32 logits [N, K] for float32 images [N, H, W, 3] in [-1, 1].

        The images are resized to the teacher's size.
        """
        count, size = inputs.shape[0], self.image_size or inputs.shape[1]
        if size != inputs.shape[1]:
            inputs = jax.image.resize(inputs, (count, size, size, 3), "bilinear", antialias=True)
        return jax.lax.stop_gradient(self.answer(params, inputs))


def read(path: Path, num_classes: int, precision: str) -> Teacher:
    """Read a teacher; raises CheckpointError, or ConfigError if it has other classes."""
    found = _from_onnx(path) if path.suffix == ".onnx" else _from_checkpoint(path, precision)
    if found.num_classes != num_classes:
        raise ConfigError(
            f"teacher: {path} knows {found.num_classes} classes, the data have {num_classes}"
        )
    return found


def _from_checkpoint(path: Path, precision: str) -> Teacher:
    pretrained = models.read(path)
    model = models.build(pretrained.config, pretrained.num_classes, precision)

    def answer(params: optax.Params, inputs: jax.Array) -> jax.Array:
        return models.apply(model, params, inputs)

    return Teacher(pretrained.params, pretrained.num_classes, pretrained.image_size, answer)


def _from_onnx(path: Path) -> Teacher:
    """A graph with the input `image` uint8 [N, H, W, 3] and the output `logits` [N, K].

    ONNX Runtime computes on the host. Mixing gives fractional pixels, which are rounded for it.
    """
    session = open_onnx(path, "teacher")
    outputs = {value.name: value for value in session.get_outputs()}
    size, classes = int(session.get_inputs()[0].shape[1]), int(outputs["logits"].shape[1])

    def run(inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        pixels = np.rint(np.asarray(inputs) * 127.5 + 127.5).clip(0, 255).astype(np.uint8)
        found: npt.NDArray[np.float32] = session.run(["logits"], {"image": pixels})[0]
        return found

    def answer(_: optax.Params, inputs: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct((inputs.shape[0], classes), jnp.float32)
        called: jax.Array = jax.pure_callback(run, shape, inputs, vmap_method="sequential")
        return called

    return Teacher({}, classes, size, answer)


def open_onnx(path: Path, field: str) -> Any:  # noqa: ANN401 - ONNX Runtime's, without types
    """An exported classifier in ONNX Runtime, for `field` of a command; raises ConfigError."""
    try:
        import onnxruntime  # noqa: PLC0415  imported only where there is an ONNX
    except ImportError:
        raise ConfigError(
            f"{field}: an .onnx file needs onnxruntime: pip install onnxruntime"
        ) from None
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no other common base class
        raise ConfigError(f"{field}: {path}: {error}") from None
    inputs = [(value.name, value.type, len(value.shape)) for value in session.get_inputs()]
    outputs = {value.name for value in session.get_outputs()}
    if inputs != [("image", "tensor(uint8)", 4)] or not {"logits", "probabilities"} <= outputs:
        raise ConfigError(
            f"{field}: {path}: expected the input image (uint8) and the outputs logits and "
            "probabilities, as `python -m export` writes them"
        )
    return session
