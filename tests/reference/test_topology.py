"""The TPU's compiler without a TPU; what it said is what the documentation shows."""

import importlib.util
import json
from pathlib import Path

import pytest

from reference import compile_report, topology
from reference.topology import Compiled
from tests.reference.runs import run

pytestmark = pytest.mark.timeout(400)  # programs are compiled, on however busy a machine
DOCS = Path(__file__).parents[2] / "docs"
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the package libtpu, the TPU's compiler, is not installed (requirements/tpu.txt)",
)


def compiled(out: Path, slice_: str, *flags: str) -> tuple[Compiled, str]:
    """The only row that the command writes into `out`, and what it prints."""
    done = run("compile", "--topology", slice_, *flags, "--out", out)
    assert done.returncode == 0, done.stderr
    (row,) = compile_report.read(out)
    return row, done.stdout


@needs_libtpu
def test_the_forward_pass_compiles_for_v3_with_an_optimum_beside_the_paper(tmp_path: Path) -> None:
    out = tmp_path / "v3.json"
    row, said = compiled(out, "v3:2x2", "--models", "mixer_s16", "--batch-sizes", "64")
    assert (row.devices, row.error, row.collectives) == (8, None, {})
    assert row.flops == pytest.approx(64 * 7.6e9, rel=0.05)
    assert row.memory_bytes is not None
    # Parameters (float32) are the least that lies on a device.
    assert 18_528_264 * 4 < row.memory_bytes < 2e9
    assert row.optimum is not None
    assert row.optimum > 3994
    assert "which is no measurement; the paper measured 3994 on a TPUv3 core" in said
    assert json.loads(out.read_text())["libtpu"]


@needs_libtpu
def test_the_training_step_reduces_gradients_over_all_devices(tmp_path: Path) -> None:
    flags = ("--kind", "train", "--models", "mixer_testing", "--batch-sizes", "8")
    row, _ = compiled(tmp_path / "train.json", "v5e:2x2", *flags)
    assert (row.devices, row.kind, row.error) == (4, "train", None)
    assert row.collectives
    assert row.collectives["all-reduce"] >= 1
    assert row.optimal_seconds is None, "v5e's compiler has no model of time"


@needs_libtpu
def test_what_does_not_fit_says_so(tmp_path: Path) -> None:
    flags = ("--models", "mixer_testing", "--batch-sizes", "20000000")
    row, said = compiled(tmp_path / "large.json", "v5e:2x2", *flags)
    assert "does not fit" in said
    assert row.error is not None
    assert "memory" in row.error


@needs_libtpu
def test_a_slice_that_does_not_exist_is_refused() -> None:
    done = run("compile", "--topology", "v9:2x2")
    assert done.returncode == 2
    assert "error: topology v9:2x2:" in done.stderr
    assert "v5e:16x16" in done.stderr


def row(model: str, batch: int, optimal_seconds: float | None, slice_: str = "v3:2x2") -> Compiled:
    return Compiled(
        slice_, 8, model, 224, "forward", batch, "bfloat16", 2.0, None, 10**9, 1e12, {},
        optimal_seconds,
    )  # fmt: skip


def test_the_comparison_takes_the_batch_with_the_best_optimum() -> None:
    rows = [
        row("mixer_b16", 64, 0.04),
        row("mixer_b16", 128, 0.064),
        row("vit_b16", 128, 0.1),
        row("vit_s16", 128, 0.1),  # which the paper has not timed
        row("mixer_s16", 128, None, "v5e:2x2"),
    ]
    assert compile_report.comparison(rows) == [
        ("Mixer-B/16", "128", "2000", "1384", "69%"),
        ("ViT-B/16", "128", "1280", "861", "67%"),
    ]


def test_compiling_a_program_again_replaces_its_row(tmp_path: Path) -> None:
    first, second = row("mixer_b16", 64, 0.04), row("mixer_b16", 64, 0.05)
    assert first.same_program(second)
    assert not first.same_program(row("mixer_b16", 128, 0.04))
    compile_report.write([first], tmp_path / "x.json", "1")
    assert compile_report.read(tmp_path / "x.json") == [first]


def test_without_the_compiler_the_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(topology.TopologyError, match=r"pip install -r requirements/tpu\.txt"):
        topology.slice_layout("v3:2x2")


def test_the_tables_of_the_documentation_are_those_of_the_results() -> None:
    page = DOCS / "tpu.md"
    assert page.read_text() == compile_report.refresh(page), "run: python -m reference tables"
