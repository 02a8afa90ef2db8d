"""`python -m export` at each precision, with its gate, and for each engine."""

from pathlib import Path

import numpy as np
import pytest

from contracts.cpu_engines import stated_engine
from contracts.gate import Judgement
from export import commands, reduction
from export.graph import open_graph
from export.options import EngineChoice, Precision
from tests import exported
from tests.export.command_line import CHECKPOINT, Export
from tests.photos import photo


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(24):
        (folder / f"{index}.jpg").write_bytes(photo(index, 64, 48))
    return folder


@pytest.mark.parametrize(
    ("flags", "same", "precision", "said"),
    [
        ("fma avx512_vnni", 12, "int8", "12 of 12"),
        ("fma avx512_vnni", 9, "fp32", "9 of 12 images (75.0%, the gate is at 98.0%)"),
        ("fma avx2", 12, "fp32", "this CPU has no VNNI"),
    ],
)
def test_with_images_int8_is_the_default_where_it_pays_and_passes(  # noqa: PLR0917 - the columns of the table above
    export: Export,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: str,
    same: int,
    precision: str,
    said: str,
) -> None:
    cpu_info = photos.parent / "cpuinfo"
    cpu_info.write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(commands, "CPU_INFO", cpu_info)
    monkeypatch.setattr(reduction, "judge", lambda *_: Judgement("int8", 12, same, 0.1))
    arguments = ("--checkpoint", CHECKPOINT, "--name", "x", "--calibration", str(photos))
    status, out, err = export(*arguments)
    assert (status, said in out + err) == (0, True)
    assert export.parameters("x")["precision"] == precision
    gated_on = "avx512_vnni" if precision == "int8" else None
    assert export.parameters("x").get("gate_cpu_flags") == gated_on
    if precision == "fp32":  # the whole graph, not one that was quantised and given up
        images, expected = exported.golden_logits("mixer_tiny")
        model = open_graph(export.repository / "x" / "1" / "model.onnx")
        np.testing.assert_allclose(model.run(["logits"], {"image": images})[0], expected, atol=2e-5)


@pytest.mark.parametrize(
    ("asked", "precision", "flags", "gpu", "engine"),
    [
        ("auto", "int8", "avx512_vnni amx_int8", None, "openvino"),
        ("auto", "int8", "avx512_vnni amx_int8", "9.0", "onnxruntime"),
        ("auto", "int8", "avx512_vnni avx512_bf16", None, "onnxruntime"),
        ("auto", "fp32", "avx512_vnni amx_int8", None, "onnxruntime"),
        ("onnxruntime", "int8", "avx512_vnni amx_int8", None, "onnxruntime"),
        ("openvino", "fp32", "avx2", "9.0", "openvino"),
    ],
)
def test_the_engine_follows_precision_and_cpu_unless_one_is_asked_for(  # noqa: PLR0917 - the columns of the table above
    asked: EngineChoice,
    precision: Precision,
    flags: str,
    gpu: str | None,
    engine: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(commands, "CPU_INFO", cpu_info)
    monkeypatch.setattr(commands, "compute_capability", lambda: gpu)
    assert commands.chosen_engine(asked, precision) == engine


def test_a_model_is_published_for_the_engine_that_is_asked_for(export: Export) -> None:
    status, _, _ = export("--checkpoint", CHECKPOINT, "--name", "x", "--engine", "openvino")
    assert status == 0
    text = (export.repository / "x" / "config.pbtxt").read_text()
    assert text.startswith("# Written by `python -m export`. Serve it with OpenVINO.\n")
    assert stated_engine(export.config("x")) == "openvino"


def test_int8_is_calibrated_and_judged(export: Export, photos: Path) -> None:
    flags = ("--precision", "int8", "--calibration", str(photos), "--name", "small")
    status, out, _ = export("--checkpoint", CHECKPOINT, *flags)
    assert status == 0
    assert "int8: the same first class as FP32 on 12 of 12 images" in out
    parameters = export.parameters("small")
    assert (parameters["precision"], parameters["gate_passed"]) == ("int8", "true")
    assert parameters["gate_pictures"] == "12"
    images, expected = exported.golden_logits("mixer_tiny")
    logits = open_graph(export.repository / "small" / "1" / "model.onnx").run(
        ["logits"], {"image": images}
    )[0]
    assert 0 < np.abs(logits - expected).max() < 0.2


def test_a_model_that_misses_its_gate_is_published_only_when_told(
    export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nonsense(classifier: object, session: object, precision: str, images: object) -> object:
        del classifier, session, precision, images
        return Judgement("fp16", 100, 42, 3.0)

    monkeypatch.setattr(reduction, "judge", nonsense)
    flags = ("--checkpoint", CHECKPOINT, "--name", "bad", "--precision", "fp16")
    status, _, err = export(*flags)
    assert status == 1
    assert "42 of 100 images (42.0%, the gate is at 99.5%)" in err
    assert "--force publishes it all the same" in err
    assert not list(export.repository.iterdir())
    status, out, err = export(*flags, "--force")
    assert (status, "misses its gate" in err, "42 of 100" in out) == (0, True, True)
    assert export.parameters("bad")["gate_passed"] == "false"
