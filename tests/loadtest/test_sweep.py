"""Growth with resolution: the fit on known laws, the checkpoints, and the command end to end."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from export.checkpoint import load_classifier
from loadtest import sweep
from loadtest.results import read
from loadtest.servers.turns import Turns
from loadtest.stats import growth
from tests import tiny_models
from tests.loadtest.runs import AMONG_OTHERS, loadtest, steady_loadtest
from tests.waiting import CHECKOUT, wait_for

TOKENS = (49, 100, 196, 400, 784, 1600)


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0])
def test_a_known_power_is_found(exponent: float) -> None:
    found = growth.fit([(tokens, 0.3 * tokens**exponent) for tokens in TOKENS])
    assert found["exponent"] == pytest.approx(exponent)
    assert found["upper_exponent"] == pytest.approx(exponent)
    assert found["scale"] == pytest.approx(0.3)


def test_the_quadratic_share_is_that_of_the_largest_size() -> None:
    linear = growth.fit([(tokens, 5 + 0.2 * tokens) for tokens in TOKENS])
    assert linear["quadratic_share"] == pytest.approx(0, abs=1e-3)
    mixed = growth.fit([(tokens, 0.2 * tokens + 0.2 / 1600 * tokens**2) for tokens in TOKENS])
    assert mixed["quadratic_share"] == pytest.approx(0.5, abs=1e-3)


def test_the_mixer_of_another_size_is_the_tables_but_for_its_patches(tmp_path: Path) -> None:
    path = tmp_path / "mixer.npz"
    sweep.write_mixer(path, sweep.MIXERS["mixer_s16"], 96)
    found = load_classifier(path, None)
    assert (found.family, found.image_size, found.num_classes) == ("mixer", 96, 1000)
    with np.load(path) as arrays:
        assert arrays["MixerBlock_7/token_mixing/Dense_0/kernel"].shape == (36, 256)
        assert arrays["MixerBlock_7/channel_mixing/Dense_1/kernel"].shape == (2048, 512)


@pytest.mark.parametrize(("size", "hidden"), [(224, 256), (448, 1024), (112, 64)])
def test_an_enlarged_mixer_grows_with_its_patches(size: int, hidden: int) -> None:
    """As block-diagonal enlargement does: K² times the patches, K² times the hidden width."""
    found = sweep.sizes_of("mixer_s16_enlarged", size)
    assert found is not None
    assert found.tokens_mlp_dim == hidden
    fixed = sweep.sizes_of("mixer_s16", size)
    assert fixed is not None
    assert fixed.tokens_mlp_dim == 256
    assert sweep.sizes_of("vit_s16", size) is None


def rows(exponents: list[float]) -> list[dict[str, Any]]:
    """Rows of a model whose time grows so in each round; the arithmetic grows linearly."""
    return [
        {
            "tokens": tokens, "flops": 2.0 * tokens, "compute_ms": tokens ** exponents[0],
            "cpu_ms": tokens ** exponents[0],
            "windows": [
                {"round": n, "compute_ms": tokens**e, "cpu_ms": tokens**e, "disturbed": ""}
                for n, e in enumerate(exponents)
            ],
        }
        for tokens in TOKENS
    ]  # fmt: skip


def test_an_exponent_has_an_interval_and_its_theory() -> None:
    found = growth.fits(rows([1.2, 1.1, 1.3, 1.2]))
    assert found["cpu_ms"]["low"] == pytest.approx(1.2 - 0.13, abs=0.001)  # 3.182 × 0.0816 ÷ √4
    assert found["cpu_ms"]["high"] == pytest.approx(1.2 + 0.13, abs=0.001)
    assert found["flops"]["exponent"] == pytest.approx(1)
    few = growth.fits(rows([1.2, 1.1]))
    assert "low" not in few["cpu_ms"]


def test_a_disturbed_round_is_in_no_interval() -> None:
    made = rows([1.2, 1.1, 1.3, 5.0])
    for row in made:
        row["windows"][3]["disturbed"] = "other programs took a core"
    found = growth.fits(made)
    assert found["cpu_ms"]["high"] < 1.5


@pytest.mark.timeout(600)  # a run may be repeated
def test_the_sweep_end_to_end(tmp_path: Path) -> None:
    """With models that are there already, so that nothing has to be exported."""
    sizes = (16, 32, 48, 64)
    for size in sizes:
        tiny_models.publish(tmp_path / "models", f"mixer_s16_at_{size}")
    out, page = tmp_path / "sweep.json", tmp_path / "page.md"
    done = steady_loadtest(
        *("sweep", "--models", "mixer_s16", "--sizes", *map(str, sizes), "--seconds", "0.3"),
        *("--rounds", "3", "--repository", tmp_path / "models", "--out", out),
        *AMONG_OTHERS,
    )
    assert done.returncode == 0, done.stderr
    result = read(out)
    assert [row["tokens"] for row in result["rows"]] == [1, 4, 9, 16]
    assert set(result["fits"]) == {"mixer_s16"}
    assert "low" in result["fits"]["mixer_s16"]["cpu_ms"]
    assert loadtest("report", out, "--markdown", page).returncode == 0
    text = (tmp_path / "page/growth.md").read_text()
    assert re.search(r"^## Growing resolution on .+: mixer_s16$", text, re.MULTILINE)


def test_a_sweep_that_is_cut_off_keeps_what_it_has_and_ends_its_servers(tmp_path: Path) -> None:
    sizes = (16, 32, 48, 64)
    for size in sizes:
        tiny_models.publish(tmp_path / "models", f"mixer_s16_at_{size}")
    out = tmp_path / "sweep.json"
    command = (
        *(sys.executable, "-m", "loadtest", "sweep", "--models", "mixer_s16"),
        *("--sizes", *map(str, sizes), "--seconds", "0.3", "--rounds", "500"),
        *("--repository", tmp_path / "models", "--out", out, *AMONG_OTHERS),
    )
    with subprocess.Popen(list(map(str, command)), cwd=CHECKOUT, stderr=subprocess.PIPE) as process:
        try:
            wait_for(out.exists)
            started = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"what had been measured is in {out}" in said.decode()
    result = read(out)
    assert not result["complete"]
    assert result["rows"][0]["image_size"] == 16
    assert started
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive


def test_a_model_that_does_not_load_is_named_and_the_others_windows_are_kept(
    tmp_path: Path,
) -> None:
    sizes = (16, 32, 48, 64)
    for size in sizes:
        folder = tiny_models.publish(tmp_path / "models", f"mixer_s16_at_{size}")
        if size == 32:
            (folder / tiny_models.MODEL_FILE).write_bytes(b"not a graph")
    out = tmp_path / "sweep.json"
    done = loadtest(
        *("sweep", "--models", "mixer_s16", "--sizes", *map(str, sizes), "--seconds", "0.2"),
        *("--rounds", "1", "--repository", tmp_path / "models", "--out", out, *AMONG_OTHERS),
    )
    assert done.returncode == 2
    error, kept = done.stderr.splitlines()
    assert error.startswith("error: python -m server.triton_alone ended: ")
    assert "mixer_s16_at_32" in error
    assert kept == f"what had been measured is in {out}"
    assert [row["image_size"] for row in read(out)["rows"]] == [16]


def test_the_models_of_a_size_are_measured_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round is whole, and goes in the opposite order of the one before."""
    run = sweep.Sweep(["a", "b"], [16, 32, 16], tmp_path, tmp_path / "out.json")
    asked: list[str] = []

    @contextlib.contextmanager
    def serving(_: Turns, folder: Path) -> Iterator[None]:
        asked.append(folder.name)
        yield

    async def nothing(*_: object) -> None:
        """No window: the order alone is asked."""

    def published(_: Path, model: str, size: int) -> Path:
        return tiny_models.publish(tmp_path / "models", f"{model}_at_{size}")

    monkeypatch.setattr(sweep, "publish", published)
    monkeypatch.setattr(Turns, "serving", serving)
    monkeypatch.setattr(run, "_measure", nothing)
    run.run([], 1.0, 2)
    there = ["a_at_16", "b_at_16", "a_at_32", "b_at_32"]
    assert asked == [*there, *reversed(there)]


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
    assert "| mixer_testing@32 |" in (tmp_path / "page/bare.md").read_text()
