"""The figure of a training run, drawn by `python -m reference plot` from the log that it left."""

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from reference import plot
from tests.reference.runs import run


def write_log(path: Path, accuracies: list[float]) -> Path:
    """A run of ten steps an epoch."""
    rows: list[dict[str, float]] = []
    for epoch, accuracy in enumerate(accuracies, 1):
        steps = range(10 * epoch - 9, 10 * epoch + 1)
        rows += [{"step": step, "loss": 2 / step, "images_per_second": 100.0} for step in steps]
        rows[-1] |= {"epoch": epoch, "validation_accuracy": accuracy}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_same_runs_give_the_same_image(tmp_path: Path) -> None:
    one = write_log(tmp_path / "one.log.jsonl", [0.3, 0.5, 0.7])
    # Killed while it wrote a row, and gone over that step again.
    other = write_log(tmp_path / "other.log.jsonl", [0.2, 0.4, 0.6])
    with other.open("a") as file:
        file.write('{"step": 30, "loss": 0.1, "epoch": 3, "validation_accuracy": 0.65}\n{"ste')
    done = run("plot", "--log", one, other, "--out", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    assert "2 runs" in done.stdout
    # The process of these tests has other settings of matplotlib, by its other tests or by itself.
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        for out in ("b.png", "a.svg"):
            plot.plot([one, other], tmp_path / out)
        assert mpl.rcParams["font.size"] == 30
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
        assert min(image.size) > 300
    assert len(colours) > 20
    svg = (tmp_path / "a.svg").read_text()
    assert "<svg" in svg
    assert "<dc:date>" not in svg


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("", "curve.png", "found no step"),
        ("hello\n", "curve.png", "expected a log of a training run"),
        ("[1]\n", "curve.png", "expected a log of a training run"),
        ('{"step": 1}\n', "curve.png", "expected a log of a training run"),
        ('{"step": 1, "loss": 2}\n', "curve.jpg", "does not end in .png"),
    ],
)
def test_what_is_no_log_is_refused_and_nothing_is_written(
    tmp_path: Path, text: str, name: str, says: str
) -> None:
    log = tmp_path / "run.log.jsonl"
    log.write_text(text)
    with pytest.raises(plot.PlotError, match=says):
        plot.plot([log], tmp_path / name)
    assert list(tmp_path.iterdir()) == [log]


def test_a_mistake_ends_in_one_line(tmp_path: Path) -> None:
    done = run("plot", "--log", tmp_path / "absent.log.jsonl", "--out", tmp_path / "curve.png")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "No such file" in done.stderr
    assert len(done.stderr.splitlines()) == 1
