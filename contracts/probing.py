"""The known inference by which a model is probed: by the gateway, by Triton's launchers, by export.

In: a model's input size, or its answer. Out: the image that every probe sends; the answer that the
model gave when it was exported (`golden.json` in its folder), written and compared. A model that
was exported before this file existed has none; its answer must only be a distribution. Imports only
the standard library, since NVIDIA's image has this module too.
"""

import functools
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GOLDEN_NAME = "golden.json"
# How far a probability may be from the golden one. Another backend, another batch size or FP16 move
# it by rounding, and INT8 in TensorRT by some thousandths; other weights move it by far more.
TOLERANCE = 5e-2
# Triton's words (python_be.cc, stub_launcher.cc) about a process of its Python backend, which
# computes a model and has ended, or has shown no sign of life for 1 s. They are no answer of the
# model.
PROCESS_LOST = ("is not healthy", "Failed to obtain the health mutex")
MOST_CLASSES = 10  # in a golden answer, the most probable


@functools.lru_cache(maxsize=32)
def probe_pixels(height: int, width: int) -> bytes:
    """The image that every probe sends, uint8[height, width, 3]: three gradients."""
    return bytes(
        (7 * x + 13 * y + 85 * channel) % 256
        for y in range(height)
        for x in range(width)
        for channel in range(3)
    )


@dataclass(frozen=True)
class Golden:
    """What a model answered to the probe's image when it was exported."""

    image_sha256: str
    classes: int
    top: dict[int, float]  # the likeliest classes and their probabilities

    def difference(self, probabilities: Sequence[float]) -> str | None:
        """How an answer differs from this one, as the end of a sentence; None where it does not."""
        if len(probabilities) != self.classes:
            return f"has {len(probabilities)} classes instead of {self.classes}"
        worst = max(self.top, key=lambda index: abs(probabilities[index] - self.top[index]))
        off = abs(probabilities[worst] - self.top[worst])
        if not off <= TOLERANCE:
            return (
                f"gives class {worst} {probabilities[worst]:.4g} instead of {self.top[worst]:.4g}, "
                "which it gave when it was exported"
            )
        return None


def golden_of(probabilities: Sequence[float], height: int, width: int) -> Golden:
    """The golden answer to keep, from the probabilities [K] of `probe_pixels(height, width)`."""
    likeliest = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])[:MOST_CLASSES]
    return Golden(
        image_sha256=hashlib.sha256(probe_pixels(height, width)).hexdigest(),
        classes=len(probabilities),
        top={index: round(float(probabilities[index]), 7) for index in likeliest},
    )


def write_golden(folder: Path, golden: Golden) -> None:
    """Write the golden answer into a model's folder, whole or not at all."""
    document = {
        "about": "what this model answered to the image of every probe when it was exported",
        "image_sha256": golden.image_sha256,
        "classes": golden.classes,
        "top": {str(index): value for index, value in golden.top.items()},
    }
    partial = folder / f".{GOLDEN_NAME}.partial"
    partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / GOLDEN_NAME)


def read_golden(folder: Path) -> Golden | None:
    """The golden answer in a model's folder; None where there is none.

    Raises ValueError, which names the file, when there is one that cannot be used.
    """
    path = folder / GOLDEN_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    try:
        classes = int(document["classes"])
        top = {int(index): float(value) for index, value in document["top"].items()}
        golden = Golden(str(document["image_sha256"]), classes, top)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no golden answer: {error!r}") from None
    if not top or not all(0 <= index < classes for index in top):
        raise ValueError(f"{path} is no golden answer: its classes are not those of the model")
    return golden


def fault_of(probabilities: Sequence[float], golden: Golden | None) -> str | None:
    """What is wrong with a model's answer to the probe, as the end of a sentence; None if nothing.

    Without a golden answer it must be a distribution: it adds up to 1, which NaN never does.
    """
    if golden is not None:
        return golden.difference(probabilities)
    total = math.fsum(probabilities)
    if not abs(total - 1) < 1e-2:
        return f"has probabilities that add up to {total:.4g}, not 1"
    return None
