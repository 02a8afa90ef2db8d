"""The results of a study: a table, a figure, intervals.

In: the `study.json` of `reference.study`, of a complete study or of one that still runs. Out:
Markdown and a figure. Intervals are of 95 %, by bootstrap over the test images, which are the same
for all networks; a value is the mean over the seeds. The spread between seeds is shown beside the
intervals and is not part of them.
"""

import dataclasses
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from reference import checkpoint
from reference.plot import own_style
from reference.study import FAMILIES

DRAWS, LEVEL = 2000, 0.95
NAMES = {"mixer": "Mixer", "vit": "ViT", "bit": "BiT"}


class ReportError(ValueError):
    """The file is no study; the message says what was expected."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One family on one share of the data, over its seeds."""

    family: str
    share: float
    runs: tuple[dict[str, Any], ...]
    right: npt.NDArray[np.float64]  # [test images]: the share of the seeds that were right

    @property
    def accuracy(self) -> float:
        """The accuracy on the test images, as the mean over the seeds."""
        return float(self.right.mean())

    def mean(self, field: str) -> float:
        """The mean of a field over the runs."""
        return float(np.mean([run[field] for run in self.runs]))


def read(path: Path) -> tuple[dict[str, Any], list[Point]]:
    """A study and its points, ordered by family and by share; raises ReportError."""
    try:
        study = json.loads(path.read_text())
        labels = np.array(list(study["labels"]))
        points = []
        for family, share in itertools.product(FAMILIES, sorted(study["plan"]["shares"])):
            runs = [
                run for run in study["runs"] if (run["family"], run["share"]) == (family, share)
            ]
            if runs:
                right = np.mean([np.array(list(run["answers"])) == labels for run in runs], axis=0)
                points.append(Point(family, share, tuple(runs), right))
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(
            f"{path}: expected the study.json of a study, found another file"
        ) from error
    if not points:
        raise ReportError(f"{path}: no run of the study is done yet")
    return study, points


def interval(values: npt.NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """The bootstrap's interval of the mean of values [N]."""
    random = np.random.default_rng(seed)
    draws = random.integers(len(values), size=(DRAWS, len(values)))
    ends = np.quantile(values[draws].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(ends[0]), float(ends[1])


def markdown(study: dict[str, Any], points: list[Point]) -> str:
    """Two tables: every point, and the differences between the families at each share."""
    lines = [
        "| network | images | epochs | seeds | test accuracy | 95 % interval | of each seed "
        "| training images | parameters | forward MFLOP | CPU minutes to train |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for point in points:
        low, high = interval(point.right)
        each = ", ".join(f"{run['test_accuracy']:.1%}" for run in point.runs)
        cells = (
            f"{NAMES[point.family]} ({point.family}_{study['plan']['size']})",
            f"{point.runs[0]['images']:,}",
            f"{point.mean('epochs'):.1f}",
            str(len(point.runs)),
            f"{point.accuracy:.1%}",
            f"{low:.1%} to {high:.1%}",
            each,
            f"{point.mean('train_accuracy'):.1%}",
            f"{point.runs[0]['parameters']:,}",
            f"{point.runs[0]['forward_flops'] / 1e6:.1f}",
            f"{point.mean('cpu_seconds') / 60:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| share of the images | difference | points | 95 % interval |",
        "|---|---|---|---|",
    ]
    for share in sorted({point.share for point in points}):
        here = {point.family: point for point in points if point.share == share}
        for one, other in itertools.combinations(here, 2):
            difference = 100 * (here[one].right - here[other].right)
            low, high = interval(difference)
            names = f"{NAMES[one]} − {NAMES[other]}"
            lines.append(
                f"| {share:.0%} | {names} | {difference.mean():+.1f} | {low:+.1f} to {high:+.1f} |"
            )
    return "\n".join(lines) + "\n"


@own_style
def draw(study: dict[str, Any], points: list[Point], out: Path) -> None:
    """Draw accuracy against data, and the loss from training to test images, as .svg or .png."""
    figure = Figure((9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for family in FAMILIES:
        mine = [point for point in points if point.family == family]
        if not mine:
            continue
        images = [point.runs[0]["images"] for point in mine]
        accuracy = np.array([point.accuracy for point in mine])
        ends = np.array([interval(point.right) for point in mine])
        errors = np.abs(ends.T - accuracy)
        label = f"{NAMES[family]} ({family}_{study['plan']['size']})"
        left.errorbar(images, 100 * accuracy, 100 * errors, marker="o", capsize=3, label=label)
        gap = [100 * (point.mean("train_accuracy") - point.accuracy) for point in mine]
        right.plot(images, gap, marker="o", label=label)
    for axes, text in ((left, "test accuracy, %"), (right, "training − test accuracy, points")):
        axes.set(xlabel="training images", ylabel=text, xscale="log")
        counts = sorted({point.runs[0]["images"] for point in points})
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    seeds = sorted({len(point.runs) for point in points})
    each = f"seeds: {' or '.join(map(str, seeds))}"
    steps = study["plan"]["steps"]
    figure.suptitle(f"CIFAR-10, {steps} steps of 128 images each; {each}; 95 % intervals")
    buffer = io.BytesIO()
    kind = out.suffix.removeprefix(".")
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else {})
    with checkpoint.atomically(out) as file:
        file.write(buffer.getvalue())
