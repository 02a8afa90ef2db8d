"""`python -m loadtest tune`: the knobs in config.pbtxt, and a search on a real Triton."""

import shutil
from pathlib import Path

from loadtest.results import read
from loadtest.servers.stack import cores
from loadtest.tune import NOTE, Knobs, candidates
from tests.loadtest.runs import loadtest
from tests.stack import DEFAULT_MODEL
from tests.waiting import CHECKOUT

CONFIG = CHECKOUT / "model_repository/mixer_cifar10/config.pbtxt"


def test_knobs_are_read_back_as_they_were_written() -> None:
    config = CONFIG.read_text()
    assert Knobs.read(config) == Knobs(0, 32, 1, 0)
    knobs = Knobs(1500, 8, 2, 3)
    written = knobs.write(config)
    assert Knobs.read(written) == knobs
    # What is not a knob is as it was.
    assert Knobs(0, 32, 1, 0).write(written) == config


def test_the_winner_is_written_with_its_evidence(model_repository: Path, tmp_path: Path) -> None:
    shutil.copytree(model_repository / DEFAULT_MODEL, tmp_path / DEFAULT_MODEL)
    out, page = tmp_path / "tune.json", tmp_path / "page.md"
    flags = (
        *("tune", "--model", DEFAULT_MODEL, "--repository", tmp_path, "--out", out),
        *("--knobs", "instances", "--concurrency", "2", "--seconds", "0.4"),
    )
    done = loadtest(*flags, "--slo-p99", "10000")
    assert done.returncode == 0, done.stderr
    result = read(out)
    tried = [each["knobs"]["instances"] for each in result["trials"]]
    assert tried == candidates(Knobs(0, 32, 1, 0), cores())["instances"]
    best = max(result["trials"], key=lambda each: each["rate"])
    assert best["rate"] > 0
    config = (tmp_path / DEFAULT_MODEL / "config.pbtxt").read_text()
    assert config.startswith(NOTE)
    assert Knobs.read(config) == Knobs(**result["winner"])
    assert loadtest("report", out, "--markdown", page).returncode == 0
    assert f"Tuned: {DEFAULT_MODEL}" in page.read_text()


def test_what_cannot_be_kept_changes_nothing(model_repository: Path, tmp_path: Path) -> None:
    shutil.copytree(model_repository / DEFAULT_MODEL, tmp_path / DEFAULT_MODEL)
    before = (tmp_path / DEFAULT_MODEL / "config.pbtxt").read_text()
    done = loadtest(
        *("tune", "--model", DEFAULT_MODEL, "--repository", tmp_path, "--slo-p99", "0.01"),
        *("--knobs", "--concurrency", "2", "--seconds", "0.2", "--out", tmp_path / "tune.json"),
    )
    assert done.returncode == 1
    assert "no setting answers within 0.01 ms" in done.stderr
    assert (tmp_path / DEFAULT_MODEL / "config.pbtxt").read_text() == before
