"""A study from end to end on a few images, gone on with, and its report beside other arithmetic."""

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from reference import study_report
from tests.reference.runs import run, write_images

pytestmark = pytest.mark.timeout(600)  # programs are compiled, on however busy a machine
FLAGS = ["--size", "testing", "--steps", "4", "--tuning-steps", "2", "--learning-rates", "0.01"]


def test_a_study_compares_the_families_and_goes_on_where_it_was(tmp_path: Path) -> None:
    images, out = write_images(tmp_path / "images", training=1100), tmp_path / "study"
    flags: list[str | Path] = ["study", *FLAGS, "--shares", "1", "--data", images, "--out", out]
    done = run(*flags, "--seeds", "1")
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "study.json").read_text())
    names = ["mixer_100_0", "vit_100_0", "bit_100_0"]
    assert [each["name"] for each in found["runs"]] == names
    assert set(found["tuning"]) == {"mixer", "vit", "bit"}
    for each in found["runs"]:
        right = [a == b for a, b in zip(each["answers"], found["labels"], strict=True)]
        assert each["test_accuracy"] == round(float(np.mean(right)), 4)
        assert (each["images"], each["test_images"]) == (200, 8)
        assert each["training_flops"] == 3 * each["forward_flops"] * 4 * 128
    # Nothing is done again.
    written = (out / "mixer_100_0.npz").stat().st_mtime_ns
    assert run(*flags, "--seeds", "1").returncode == 0
    assert (out / "mixer_100_0.npz").stat().st_mtime_ns == written
    other = run(*flags, "--seeds", "1", "--augment")
    assert other.returncode == 2
    assert "error: augment: the study in" in other.stderr
    figure = tmp_path / "study.svg"
    report = run("study-report", "--study", out / "study.json", "--figure", figure)
    assert report.returncode == 0, report.stderr
    assert "| Mixer (mixer_testing) | 200 | 2.6 | 1 |" in report.stdout
    assert "Mixer − BiT" in report.stdout
    assert "<svg" in figure.read_text()
    again = tmp_path / "again.svg"
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        study_report.draw(*study_report.read(out / "study.json"), again)
    assert again.read_text() == figure.read_text()


def test_the_interval_is_about_that_of_the_normal_distribution() -> None:
    right = np.random.default_rng(1).random(5000) < 0.6
    low, high = study_report.interval(right.astype(float))
    half = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 5000)
    assert (low, high) == pytest.approx((right.mean() - half, right.mean() + half), abs=0.001)


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    file.write_text("[]")
    with pytest.raises(study_report.ReportError, match=r"study\.json: expected the study\.json"):
        study_report.read(file)
