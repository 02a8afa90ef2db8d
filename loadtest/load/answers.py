"""Whether an answer is right: it must equal the answer that was recorded for the same image.

In: JSON documents of `POST /classify` and `/classify/batch`, or rows of probabilities. Out: a
sentence that names the error, or "". Rounding depends on the batch in which an image is computed.
So a probability may differ by a small share of itself, and labels whose probabilities are so near
to each other may change places.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.repository import HINT_BF16

TOP_K = 5  # labels asked for under load
RECORDED = 10  # labels asked for at the start; among them are those that rounding may move up
# Allowed differences, as shares of a probability. BF16 and a quantised graph round to 8 bits, so
# that their rounding errors are large.
TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 5e-2, "int8": 5e-2}
Probabilities = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Recorded:
    """The right answer for one image: classes, the most probable first, with probabilities."""

    model: str
    order: tuple[int, ...]
    probabilities: dict[int, float]
    labels: dict[int, str]
    tolerance: float

    @property
    def top_k(self) -> int:
        """How many labels to ask for under load."""
        return min(TOP_K, len(self.order))


def precision_of(provenance: Mapping[str, str]) -> str:
    """The precision in which a model computes, from what GET /models/NAME says of it."""
    stated = provenance.get("precision", "fp32")
    return "bf16" if stated == "fp32" and provenance.get(HINT_BF16) == "YES" else stated


def record(document: dict[str, Any], tolerance: float) -> Recorded:
    """The answer that later answers must equal; raises ValueError if its form is not right."""
    if problem := misshapen(document):
        raise ValueError(problem)
    found = document["predictions"]
    return Recorded(
        model=document["model"],
        order=tuple(each["index"] for each in found),
        probabilities={each["index"]: each["probability"] for each in found},
        labels={each["index"]: each["label"] for each in found},
        tolerance=tolerance,
    )


def misshapen(document: object) -> str:
    """The error in the form of a JSON answer to /classify; "" if there is none."""
    match document:
        case {"model": str(), "version": str(), "predictions": [_, *_] as predictions}:
            return misshapen_predictions(predictions)
    return f"not an answer: {str(document)[:200]}"


def misshapen_predictions(predictions: list[object]) -> str:
    """The error in the form of a list of predictions; "" if there is none."""
    for prediction in predictions:
        match prediction:
            case {"label": str(), "index": int(), "probability": float() | int()}:
                continue
        return f"not a prediction: {str(prediction)[:200]}"
    return ""


def wrong(document: Any, right: Recorded) -> str:  # noqa: ANN401 - JSON
    """What is wrong with the answer to an image; "" if it is right."""
    if problem := misshapen(document):
        return problem
    if document["model"] != right.model:
        return f"model {document['model']!r} answered, expected {right.model!r}"
    return wrong_predictions(document["predictions"], right)


def wrong_predictions(predictions: list[dict[str, Any]], right: Recorded) -> str:
    """What is wrong with the predictions for an image; "" if they are right."""
    if len(predictions) != right.top_k:
        return f"{len(predictions)} predictions, expected {right.top_k}"
    if len({prediction["index"] for prediction in predictions}) < len(predictions):
        return "a label is there twice"
    for place, prediction in enumerate(predictions):
        index, given = prediction["index"], prediction["probability"]
        expected = right.probabilities.get(index)
        least = right.probabilities[right.order[place]]
        allowed = right.tolerance * least + 1e-6
        if (
            expected is None
            or prediction["label"] != right.labels[index]
            or not abs(given - expected) <= allowed  # so that NaN is wrong too
            or expected < least - allowed
        ):
            label = right.labels[right.order[place]]
            return (
                f"place {place + 1}: {prediction['label']!r} with {given:.7g}, "
                f"expected {label!r} with {least:.7g}"
            )
    return ""


def wrong_rows(rows: Probabilities, right: Probabilities, tolerance: float) -> str:
    """The error in Triton's float32[N, K]; "" if each row is near the same row of `right`."""
    if rows.shape != right.shape:
        return f"shape {list(rows.shape)}, expected {list(right.shape)}"
    distance = float(np.abs(rows - right).max())
    if not distance <= tolerance * float(right.max()) + 1e-6:
        return f"a probability differs by {distance:.3g} from what was recorded"
    return ""
