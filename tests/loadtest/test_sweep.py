"""Growth with resolution: the fit on known laws, the checkpoints, and the command end to end."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from export.checkpoint import load_classifier
from loadtest import sweep
from loadtest.results import read
from tests import tiny_models
from tests.loadtest.runs import loadtest

TOKENS = (49, 100, 196, 400, 784, 1600)


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0])
def test_a_known_power_is_found(exponent: float) -> None:
    found = sweep.fit([(tokens, 0.3 * tokens**exponent) for tokens in TOKENS])
    assert found["exponent"] == pytest.approx(exponent)
    assert found["upper_exponent"] == pytest.approx(exponent)
    assert found["scale"] == pytest.approx(0.3)


def test_the_quadratic_share_is_that_of_the_largest_size() -> None:
    linear = sweep.fit([(tokens, 5 + 0.2 * tokens) for tokens in TOKENS])
    assert linear["quadratic_share"] == pytest.approx(0, abs=1e-3)
    mixed = sweep.fit([(tokens, 0.2 * tokens + 0.2 / 1600 * tokens**2) for tokens in TOKENS])
    assert mixed["quadratic_share"] == pytest.approx(0.5, abs=1e-3)


def test_the_mixer_of_another_size_is_the_tables_but_for_its_patches(tmp_path: Path) -> None:
    path = tmp_path / "mixer.npz"
    sweep.write_mixer(path, sweep.MIXERS["mixer_s16"], 96)
    found = load_classifier(path, None)
    assert (found.family, found.image_size, found.num_classes) == ("mixer", 96, 1000)
    with np.load(path) as arrays:
        assert arrays["MixerBlock_7/token_mixing/Dense_0/kernel"].shape == (36, 256)
        assert arrays["MixerBlock_7/channel_mixing/Dense_1/kernel"].shape == (2048, 512)


def test_the_sweep_end_to_end(tmp_path: Path) -> None:
    """With models that are there already, so that nothing has to be exported."""
    sizes = (16, 32, 48, 64)
    for size in sizes:
        tiny_models.publish(tmp_path / "models", f"mixer_s16_at_{size}")
    out, page = tmp_path / "sweep.json", tmp_path / "page.md"
    done = loadtest(
        *("sweep", "--models", "mixer_s16", "--sizes", *map(str, sizes), "--seconds", "0.3"),
        *("--rounds", "1", "--repository", tmp_path / "models", "--out", out),
    )
    assert done.returncode == 0, done.stderr
    result = read(out)
    assert [row["tokens"] for row in result["rows"]] == [1, 4, 9, 16]
    assert set(result["fits"]) == {"mixer_s16"}
    assert loadtest("report", out, "--markdown", page).returncode == 0
    assert "Growing resolution" in page.read_text()


def test_bare_models_of_both_frameworks(tmp_path: Path) -> None:
    out, page = tmp_path / "bare.json", tmp_path / "page.md"
    done = loadtest(
        *("bare", "--models", "mixer_testing", "--batch-sizes", "1", "2", "--seconds", "0.1"),
        *("--windows", "2", "--out", out),
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"│ mixer_testing@32 │ +[\d.]+ │ +[\d.]+ │", done.stdout)
    assert done.stdout.endswith(f"{out}\n")
    frameworks = json.loads(out.read_text())["frameworks"]
    for framework in ("pytorch", "jax"):
        (found,) = frameworks[framework]["results"]
        assert found["model"] == "mixer_testing"
        assert found["best"]["images_per_second"] > 0
        assert len(found["sweep"]) == 2
    assert loadtest("report", out, "--markdown", page).returncode == 0
    assert "| mixer_testing@32 |" in page.read_text()
