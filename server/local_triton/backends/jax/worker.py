"""JAX's process of one model instance; started by `model.py`, in an environment that has JAX.

In, on standard input: for each batch its size N (4 bytes, little-endian) and N images, uint8 [H, W,
3]. Out, on standard output: first a line of JSON with the shape of an image, the number of classes
K and the platform, or with an `error`; then for each batch float32 logits [N, K] and probabilities
[N, K]. It ends when its input ends. A batch is filled up to the next power of two; a program for
each such size is compiled before the line of JSON is sent.

    PYTHON worker.py FILE MAX_BATCH_SIZE NICENESS
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

try:
    import jax
    from jax import export
except ImportError as error:
    MISSING = f"{sys.executable} has no JAX: {error}"
else:
    MISSING = ""

# uint8 images [N, H, W, 3] → float32 logits and probabilities [N, K]
Program = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def main() -> None:
    """Serve one program until the input ends."""
    file, most, niceness = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # Output that libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.nice(niceness)
    try:
        program, shape, about = load(file, most)
    except Exception as error:  # whatever is wrong, the administrator reads it in Triton's log
        about = {"error": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(about).encode() + b"\n")
    answers.flush()
    if "error" not in about:
        serve(program, shape, answers)


def load(file: Path, most: int) -> tuple[Program, tuple[int, ...], dict[str, Any]]:
    """The program, the shape of one image, and the members of the line of JSON."""
    if MISSING:
        raise RuntimeError(MISSING)
    try:
        exported = export.deserialize(bytearray(file.read_bytes()))
    except Exception as error:  # of FlatBuffers, of StableHLO…
        raise RuntimeError(f"{file.name} is no program of jax.export: {error}") from None
    platform = jax.default_backend()
    if {"gpu": "cuda"}.get(platform, platform) not in exported.platforms:
        known = ", ".join(exported.platforms)
        raise RuntimeError(f"it is for {known}, and JAX here for {platform}")
    shape = tuple(int(side) for side in exported.in_avals[0].shape[1:])
    run = jax.jit(exported.call)

    def program(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = len(batch)
        rows = np.zeros((1 << (count - 1).bit_length(), *shape), np.uint8)
        rows[:count] = batch
        found = run(rows)
        return np.asarray(found["logits"])[:count], np.asarray(found["probabilities"])[:count]

    classes = 0
    for power in range((most - 1).bit_length() + 1):
        logits, _ = program(np.zeros((1 << power, *shape), np.uint8))
        classes = logits.shape[1]
    about = {"shape": list(shape), "classes": classes, "platform": platform, "jax": jax.__version__}
    return program, shape, about


def serve(program: Program, shape: tuple[int, ...], answers: BinaryIO) -> None:
    """Answer batch by batch."""
    one = int(np.prod(shape))
    while len(head := sys.stdin.buffer.read(4)) == 4:
        count = int.from_bytes(head, "little")
        data = sys.stdin.buffer.read(count * one)
        if len(data) < count * one:
            return
        for array in program(np.frombuffer(data, np.uint8).reshape(count, *shape)):
            answers.write(np.ascontiguousarray(array, dtype=np.float32).data)
        answers.flush()


if __name__ == "__main__":
    main()
