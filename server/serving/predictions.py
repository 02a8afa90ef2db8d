"""From the probabilities of one image to what a client reads: the best classes with their labels.

In: a model and the probabilities that it answered with. Out: `Prediction` objects, best first.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from server.engines.model import Model, Probabilities


@dataclass(slots=True)
class Prediction:
    """One class that the image may be of."""

    label: str
    index: Annotated[int, Field(ge=0, description="Of the class, from 0.")]
    probability: Annotated[float, Field(ge=0, le=1)]


def best(model: Model, probabilities: Probabilities, top_k: int) -> list[Prediction]:
    """The `top_k` most probable of float32[K] classes, best first; of equals the first index."""
    classes = np.arange(len(probabilities))
    if top_k < len(classes):
        classes = np.argpartition(probabilities, -top_k)[-top_k:]
    ordered = classes[np.lexsort((classes, -probabilities[classes]))]
    # Seven digits are what a float32 has; its digits as a float64 would claim more.
    return [
        Prediction(model.labels[index], index, float(f"{probabilities[index]:.7g}"))
        for index in ordered.tolist()
    ]
