"""The part of the report about networks that were trained here: accuracy against data and cost.

In: files `study*.json` that `python -m reference study` writes. Out: the accuracies of Mixer, ViT
and BiT, with intervals; and blocks.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtest.report.page import Block, Heading, Table, Text
from loadtest.stats.intervals import Estimate
from loadtest.stats.shares import Z

NAMES = {"mixer": "Mixer", "vit": "ViT", "bit": "BiT"}


@dataclasses.dataclass(frozen=True)
class Trained:
    """One family on one share of the data; accuracies are means over the seeds."""

    family: str
    share: float
    images: int
    steps: int  # of the training run
    epochs: float  # of these images
    seeds: int
    right: npt.NDArray[np.float64]  # [test images]: the share of the seeds that were right
    train_accuracy: float
    cpu_seconds: float

    @property
    def accuracy(self) -> float:
        """On the test images."""
        return float(self.right.mean())

    @property
    def gap(self) -> float:
        """Accuracy on training images minus accuracy on test images."""
        return self.train_accuracy - self.accuracy


def read(folder: Path) -> list[Trained]:
    """All points of the studies in a folder and in its folders; none if there is no study."""
    found = []
    for path in sorted(folder.rglob("study*.json")):
        study: dict[str, Any] = json.loads(path.read_text())
        labels = np.array(list(study["labels"]))
        keys = dict.fromkeys((run["family"], run["share"]) for run in study["runs"])
        for family, share in keys:
            runs = [r for r in study["runs"] if (r["family"], r["share"]) == (family, share)]
            right = np.mean([np.array(list(run["answers"])) == labels for run in runs], axis=0)
            found.append(
                Trained(
                    family,
                    share,
                    runs[0]["images"],
                    study["plan"]["steps"],
                    runs[0]["epochs"],
                    len(runs),
                    right,
                    float(np.mean([run["train_accuracy"] for run in runs])),
                    float(np.mean([run["cpu_seconds"] for run in runs])),
                )
            )
    return found


def of_shares(points: Sequence[Trained]) -> list[Trained]:
    """The points that show what more data brings: those of the steps with the most shares."""

    def shares(steps: int) -> int:
        return len({point.share for point in points if point.steps == steps})

    budgets = sorted({point.steps for point in points})
    most = max(budgets, key=shares, default=0)
    return [point for point in points if point.steps == most]


def of_most_steps(points: Sequence[Trained]) -> list[Trained]:
    """The points of the longest runs on all of the data."""
    full = [point for point in points if point.share == 1]
    most = max((point.steps for point in full), default=0)
    return [point for point in full if point.steps == most]


class Difference(Estimate):
    """A difference in points of per cent, with its interval over the test images."""

    def text(self) -> str:
        """As `+1.3 points (+0.4 to +2.2)`."""
        return f"{self.value:+.1f} points ({self.low:+.1f} to {self.high:+.1f})"


def difference(values: npt.NDArray[np.float64]) -> Difference:
    """The mean of paired differences, one for each test image, in points."""
    mean = 100 * float(values.mean())
    half = 100 * Z * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Difference(mean, mean - half, mean + half)


def gain(points: Sequence[Trained], family: str) -> npt.NDArray[np.float64] | None:
    """The gain on each test image from the smallest to the largest share of the data."""
    mine = sorted((p for p in points if p.family == family), key=lambda p: p.share)
    if len(mine) < 2 or len(mine[0].right) != len(mine[-1].right):
        return None
    return mine[-1].right - mine[0].right


def blocks(points: Sequence[Trained]) -> list[Block]:
    """A table of all networks."""
    if not points:
        return []
    rows = [
        (
            NAMES.get(point.family, point.family),
            f"{point.images:,}",
            f"{point.epochs:.1f}",
            str(point.seeds),
            f"{point.accuracy:.1%}",
            f"{point.train_accuracy:.1%}",
            f"{100 * point.gap:.1f}",
            f"{point.cpu_seconds / 60:.1f}",
        )
        for point in sorted(points, key=lambda p: (p.family, p.share, p.steps))
    ]
    head = (
        *("family", "training images", "epochs", "seeds", "test accuracy", "training accuracy"),
        *("lost, points", "CPU minutes to train"),
    )
    return [
        Heading("Trained here: Mixer, ViT and BiT of like cost, by one recipe"),
        Text("CIFAR-10; `docs/training.md` says how, and draws it."),
        Table(head, rows),
    ]
