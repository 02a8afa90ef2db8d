"""Timing as a user runs it, and what its numbers mean."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from reference import paper, peaks, throughput
from reference.forward import Forward
from tests.reference.runs import run

pytestmark = pytest.mark.timeout(400)  # programs are compiled, on however busy a machine


def test_every_batch_size_is_timed_and_the_best_one_shown(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    flags = ["--batch-sizes", "4", "1", "--windows", "3", "--seconds", "0.01", "--out", str(out)]
    done = run("throughput", "--models", "mixer_testing", "vit_testing", *flags, devices=2)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert (report["devices"], report["precision"]) == (2, "float32")
    assert report["peak_source"] == "measured matrix product"
    assert [result["model"] for result in report["results"]] == ["mixer_testing", "vit_testing"]
    for result in report["results"]:
        assert result["model"] in done.stdout
        assert [each["batch_size"] for each in result["sweep"]] == [1, 4]
        best = max(result["sweep"], key=lambda each: each["images_per_second"])
        assert result["best"] == best
        assert len(best["windows"]) == 3
        assert best["images_per_second"] == np.median(best["windows"])
        share = best["images_per_second"] * result["flops_per_image"] / report["peak_flops"]
        assert result["share_of_peak"] == pytest.approx(share)


def test_a_mistake_is_answered_in_one_line() -> None:
    done = run("throughput", "--models", "vit_b61")
    assert done.returncode == 2
    assert "error: no 'vit_b61'; did you mean vit_b16?" in done.stderr
    assert "above zero" in run("throughput", "--batch-sizes", "0").stderr


def test_the_first_run_is_not_counted_and_every_window_has_the_same_work() -> None:
    calls: list[int] = []

    def compute() -> jax.Array:
        calls.append(len(calls))
        return jax.numpy.zeros(())

    rates = throughput.time_windows(compute, 8, windows=4, seconds=1e-9)
    assert len(rates) == 4
    assert min(rates) > 0
    assert len(calls) == 2 + 4  # one that compiles, one that is timed to plan, one per window


@pytest.mark.parametrize(
    ("variant", "gflop"),
    # Twice the multiply-adds that the papers and their successors give for 224 × 224.
    [("mixer_b16", 25.4), ("vit_b16", 35.2), ("bit_r50x1", 8.2)],
)
def test_operations_are_counted(variant: str, gflop: float) -> None:
    found = Forward(variant, 224, "float32").flops() / 1e9
    assert found == pytest.approx(gflop, rel=0.06)


def test_at_four_times_the_pixels_token_mlps_are_four_times_as_wide() -> None:
    low, high = Forward("mixer_s16", 224, "float32"), Forward("mixer_s16", 448, "float32")
    token_mlps = low.parameters() - 8 * (2 * 196 * 256 + 196 + 256)
    assert high.parameters() == token_mlps + 8 * (2 * 784 * 1024 + 784 + 1024)


def test_the_paper_is_found_by_network_and_size() -> None:
    assert paper.measured("mixer_b16", 224) == 1384
    assert paper.measured("mixer_h14", 448) == 40
    assert paper.measured("mixer_b16", 448) is None
    assert len({(row.variant, row.image_size) for row in paper.MEASURED}) == len(paper.MEASURED)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("TPU v5 lite", 197e12), ("TPU v5", 459e12), ("NVIDIA H200", 989e12)],
)
def test_peaks_of_known_devices_come_from_data_sheets(kind: str, expected: float) -> None:
    device = SimpleNamespace(device_kind=kind, platform="none")
    assert peaks.peak(device, "bfloat16") == (expected, "data sheet")


def test_the_peak_of_any_other_device_is_measured() -> None:
    flops, source = peaks.peak(jax.devices("cpu")[0], "float32")
    assert source == "measured matrix product"
    assert 1e8 < flops < 1e14
