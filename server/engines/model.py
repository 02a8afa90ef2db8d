"""A model as serving knows it, whichever engine runs it.

In: the facts that an engine has found out about one model. Out: a `Model` with everything that a
request needs to know, or an `Unusable` with the `Problem` that says why it cannot be served.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from contracts.probing import probe_pixels
from contracts.repository import EMBEDDING, LOGITS, PROBABILITIES
from contracts.resizing import Pixels, ResizeRule
from server.problems import BadParameter, ContractBroken, Problem

DEFAULT_TOP_K = 5
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Model:
    """A model that keeps the contract: `image` UINT8[N, H, W, 3] to `probabilities` FP32[N, K].

    `parameters` are those of its config.pbtxt: resize rule and provenance. `instances` is how many
    batches it works on at once. `expected` is its answer to the probe when it was loaded,
    float32[K]. `extras` are the other outputs that a request can ask for, and the width of each:
    `logits` and `embedding`.
    """

    name: str
    version: str
    rule: ResizeRule
    classes: int
    max_batch_size: int
    instances: int
    parameters: dict[str, str]
    labels: list[str] = field(repr=False)
    expected: Probabilities = field(repr=False)
    extras: Mapping[str, int] = field(default_factory=dict)

    def interchangeable(self, other: "Model") -> bool:
        """Whether a request that was made for one of the models may be answered by the other."""
        mine = self.rule, self.classes, self.max_batch_size, self.labels, self.extras
        return (self.name, *mine) == (
            *(other.name, other.rule, other.classes, other.max_batch_size, other.labels),
            other.extras,
        )

    def equals(self, other: "Model") -> bool:
        """Whether both models have the same properties."""
        mine = self.version, self.instances, self.parameters
        return self.interchangeable(other) and mine == (
            *(other.version, other.instances, other.parameters),
        )

    def top_k(self, asked: int | None) -> int:
        """How many classes to answer with; raises `BadParameter` outside 1 to `classes`."""
        if asked is None:
            return min(DEFAULT_TOP_K, self.classes)
        if not 1 <= asked <= self.classes:
            raise BadParameter(
                f"top_k is {asked}, expected 1 to {self.classes}: "
                f"model {self.name!r} has {self.classes} classes"
            )
        return asked

    @property
    def unsure_below(self) -> float | None:
        """An image is unlike the classes if its largest logit is below this number; None if the
        number was not measured or the model has no output for logits."""
        try:
            below = float(self.parameters["unsure_below_logit"])
        except (KeyError, ValueError):
            return None
        return below if LOGITS in self.extras else None

    def split(self, row: Probabilities, extras: Sequence[str]) -> dict[str, Probabilities]:
        """The outputs side by side in a row of an answer: `probabilities`, then `extras`."""
        at = self.classes
        found = {PROBABILITIES: row[:at]}
        for name in extras:
            found[name] = row[at : at + self.extras[name]]
            at += self.extras[name]
        return found

    def summary(self) -> dict[str, object]:
        """The model's entry in the answer of GET /models."""
        return {
            "name": self.name,
            "version": self.version,
            "state": "ready",
            "input": {"height": self.rule.height, "width": self.rule.width},
            "classes": self.classes,
            "max_batch_size": self.max_batch_size,
            "embedding": self.extras.get(EMBEDDING),
            "provenance": self.parameters,
        }


@dataclass(frozen=True)
class Unusable:
    """A model that the engine lists and that cannot be served."""

    name: str
    version: str
    problem: Problem

    def summary(self) -> dict[str, object]:
        """The model's entry in the answer of GET /models."""
        return {
            "name": self.name,
            "version": self.version,
            "state": "unavailable",
            "reason": self.problem.detail,
        }


Entry = Model | Unusable


def check_distribution(
    name: str, probabilities: Probabilities, parameters: Mapping[str, str]
) -> None:
    """Raise `ContractBroken` unless float32[K] are what the model's parameters say; a NaN never is.

    With the activation `sigmoid` each class has a probability of its own; else they add up to 1.
    """
    if parameters.get("activation") == "sigmoid":
        if not (probabilities.min() >= 0 and probabilities.max() <= 1):
            raise ContractBroken(
                f"model {name!r} answered probabilities from {probabilities.min():.4g} to "
                f"{probabilities.max():.4g}, expected 0 to 1"
            )
        return
    total = float(probabilities.sum())
    if not abs(total - 1) < 1e-2:
        raise ContractBroken(
            f"model {name!r} answered probabilities that add up to {total:.4g}, not 1"
        )


def probe_image(height: int, width: int) -> Pixels:
    """The image that a model is probed with, uint8[height, width, 3]."""
    return np.frombuffer(probe_pixels(height, width), np.uint8).reshape(height, width, 3)
