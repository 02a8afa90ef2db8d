"""The figure of a training run: its loss, and its accuracy on the held-back images.

In: one or more `NAME.log.jsonl` as `reference.curve` writes them. Out: an image file; its suffix
decides the format.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from reference.checkpoint import atomically

SMOOTH = 0.03  # share of a run: the loss is shown as its mean over windows of this length
FORMATS = (".png", ".svg", ".pdf")
# Matplotlib's defaults: settings of other code and of a user's matplotlibrc have no effect. The
# names in the file are not random, so that the same log gives the same file.
own_style = style.context({"svg.hashsalt": "mixer-serving"}, after_reset=True)


class PlotError(ValueError):
    """A log that cannot be read, or an image that cannot be written; the message says why."""


def read(log: Path) -> list[dict[str, float]]:
    """The rows of a log in the order of their steps; a repeated step counts once.

    Raises PlotError.
    """
    try:
        lines = [line for line in log.read_text().splitlines() if line.strip()]
        # A killed run may have left an incomplete line; when it is resumed it repeats some steps.
        whole = lines if log.read_bytes().endswith(b"\n") else lines[:-1]
        rows = {row["step"]: row for row in map(json.loads, whole)}
        found = [rows[step] for step in sorted(rows)]
        _ = [float(row["loss"]) for row in found]
    except OSError as error:
        raise PlotError(f"{log}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError):
        raise PlotError(
            f"{log}: expected a log of a training run (NAME.log.jsonl), whose lines are JSON with "
            "a step and a loss"
        ) from None
    if not found:
        raise PlotError(f"{log}: expected a log of a training run, found no step in it")
    return found


@own_style
def plot(logs: Sequence[Path], out: Path) -> None:
    """Draw the runs beside each other. Raises PlotError; writes `out` as a whole or not at all."""
    if out.suffix not in FORMATS:
        raise PlotError(f"out: {out} does not end in {', '.join(FORMATS)}")
    runs = {log.name.removesuffix(".log.jsonl"): read(log) for log in logs}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for name, rows in runs.items():
        steps, values = _smooth([row["step"] for row in rows], [row["loss"] for row in rows])
        losses.plot(steps, values, label=name, linewidth=1.5)
        epochs = [row for row in rows if "validation_accuracy" in row]
        percent = [100 * row["validation_accuracy"] for row in epochs]
        accuracies.plot([row["epoch"] for row in epochs], percent, label=name, linewidth=1.5)
        if epochs:
            end = (epochs[-1]["epoch"], percent[-1])
            accuracies.annotate(
                f"{percent[-1]:.1f} %", end, xytext=(0, 6), textcoords="offset points", ha="right"
            )
    losses.set(xlabel="step", ylabel="training loss, augmented images")
    accuracies.set(xlabel="epoch", ylabel="accuracy on held-back images, %")
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        axes.locator_params(axis="x", nbins=6)  # with more, long labels would touch
        axes.spines[["top", "right"]].set_visible(False)
        if len(runs) > 1:
            axes.legend(frameon=False)
    # The same log gives the same file: no date in it.
    with atomically(out) as file:
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(out.suffix)
        figure.savefig(file, format=out.suffix[1:], dpi=150, metadata=metadata)


def _smooth(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """Means over windows of a few per cent of the run, at their last steps."""
    size = max(1, round(SMOOTH * len(values)))
    ends = range(size, len(values) + 1)
    return [steps[end - 1] for end in ends], [sum(values[end - size : end]) / size for end in ends]
