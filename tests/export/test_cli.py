"""`python -m export` as a user calls it: what it publishes, what it prints, how it refuses."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts.cpu_engines import stated_engine
from contracts.gate import Judgement
from contracts.repository import TENSORRT_CONFIG
from contracts.variants import VARIANTS
from export import __main__, commands, reduction, throughput
from export.graph import open_graph
from export.options import EngineChoice, Precision
from tests import exported
from tests.photos import photo

CHECKOUT = Path(__file__).resolve().parents[2]
CHECKPOINT = str(exported.GOLDEN / "mixer_tiny" / "checkpoint.npz")


class Export:
    """Runs the command line in this process, which has PyTorch already."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.repository = folder / "repository"
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, stdout and stderr."""
        flags = [*arguments, "--repository", str(self.repository)]
        self._monkeypatch.setattr(sys, "argv", ["export", *flags])
        try:
            status = __main__.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def config(self, name: str) -> model_config_pb2.ModelConfig:
        """The parsed config.pbtxt of a published model."""
        text = (self.repository / name / "config.pbtxt").read_text()
        config: model_config_pb2.ModelConfig = text_format.Parse(
            text, model_config_pb2.ModelConfig()
        )
        return config

    def parameters(self, name: str) -> dict[str, str]:
        """The `parameters` of a published model."""
        return {key: value.string_value for key, value in self.config(name).parameters.items()}


@pytest.fixture
def export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Export:
    return Export(tmp_path, monkeypatch, capsys)


def test_a_checkpoint_becomes_a_model(export: Export, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"animal {index}\n" for index in range(10)))
    flags = ("--name", "tiny", "--labels", str(labels), "--max-batch-size", "24", "--no-antialias")
    status, out, err = export("--checkpoint", CHECKPOINT, *flags)
    assert status == 0
    assert out.startswith(
        f"published {export.repository / 'tiny'}: mixer, 32×32 pixels, 10 classes"
    )
    assert "comparing with PyTorch" in err
    folder = export.repository / "tiny"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "1/model.onnx",
        "config.pbtxt",
        "golden.json",
        str(TENSORRT_CONFIG),
        "labels.txt",
    }
    assert (folder / "labels.txt").read_text() == labels.read_text()
    published = onnx.load(folder / "1/model.onnx")
    told = {entry.key: entry.value for entry in published.metadata_props}
    assert published.graph == onnx.load(exported.graph("mixer_tiny")).graph
    config, parameters = export.config("tiny"), export.parameters("tiny")
    assert config.max_batch_size == 24
    classifier = exported.classifier("mixer_tiny")
    assert parameters["checkpoint_sha256"] == classifier.sha256 == told["checkpoint_sha256"]
    stated = ("family", "precision", "random_weights", "resize", "antialias", "crop_fraction")
    assert [parameters[name] for name in stated] == [
        *("mixer", "fp32", "false", "squash", "false", "1.0")
    ]
    assert float(parameters["parity_max_abs_logit_diff"]) < 2e-5
    status, out, err = export("--checkpoint", CHECKPOINT, "--name", "tiny")
    assert (status, out[:8]) == (0, "replaced")
    assert "class_0 to class_9" in err
    assert (folder / "labels.txt").read_text().splitlines()[3] == "class_3"


def test_random_weights_are_seeded_and_marked(export: Export) -> None:
    flags = ("--model", "mixer_testing", "--num-classes", "7", "--image-size", "64")
    status, _, err = export(*flags, "--name", "a", "--seed", "3")
    assert (status, "random weights: the answers mean nothing" in err) == (0, True)
    parameters = export.parameters("a")
    assert (parameters["random_weights"], parameters["checkpoint"]) == ("true", "mixer_testing")
    assert parameters["variant"] == "mixer_testing"
    assert list(export.config("a").input[0].dims) == [64, 64, 3]
    assert list(export.config("a").output[1].dims) == [7]
    assert export(*flags, "--name", "b", "--seed", "3")[0] == 0
    one, two = (export.repository / name / "1" / "model.onnx" for name in "ab")
    assert one.read_bytes() == two.read_bytes()


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


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing": (
        (),
        "expected one of --pretrained, --checkpoint, --onnx, --model, --list, --list-pretrained, "
        "--tensorrt, found none",
    ),
    "two": (("--list", "--model", "x"), "found --model and --list"),
    "no name": (("--model", "mixer_testing"), "--model needs --name"),
    "bad name": (("--model", "mixer_testing", "--name", "a/b"), "expected a letter or digit"),
    "unknown model": (("--model", "mixer_b17", "--name", "x"), "unknown model 'mixer_b17'; known:"),
    "no file": (("--checkpoint", "none.npz", "--name", "x"), "none.npz: "),
    "size": (
        ("--checkpoint", CHECKPOINT, "--name", "x", "--image-size", "50"),
        "these Mixer weights need a multiple of 32",
    ),
    "batch": (("--model", "x", "--name", "x", "--max-batch-size", "0"), "expected 1 to 4096"),
    "no images": (("--model", "x", "--name", "x", "--precision", "int8"), "needs --calibration"),
    "no folder": (
        ("--model", "x", "--name", "x", "--precision", "int8", "--calibration", "none"),
        "--calibration none: no such folder",
    ),
    "needless": (
        ("--model", "x", "--name", "x", "--precision", "fp32", "--calibration", "."),
        "is for --precision auto, int8",
    ),
    "crop": (("--model", "x", "--name", "x", "--crop-fraction", "1.5"), "expected 0.1 to 1"),
    "much crop": (("--model", "x", "--name", "x", "--crop-fraction", "0.05"), "expected 0.1 to 1"),
    "bicubic": (
        ("--checkpoint", CHECKPOINT, "--name", "x", "--no-antialias", "--interpolation", "bicubic"),
        "add --interpolation bilinear",
    ),
    "classes": (("--checkpoint", CHECKPOINT, "--name", "x", "--num-classes", "5"), "for --model"),
    "no labels": (
        ("--checkpoint", CHECKPOINT, "--name", "x", "--labels", "none.txt"),
        "--labels none.txt: No such file",
    ),
    "tensorrt name": (("--tensorrt", "../x"), "expected a letter or digit"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_publishes_nothing(export: Export, mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    status, out, err = export(*arguments)
    assert (status, out) == (2, "")
    (line,) = [text for text in err.splitlines() if text.startswith("error: ")]
    assert message in line
    assert "Traceback" not in err
    assert not export.repository.exists()


@pytest.mark.parametrize(
    "arguments", [("--precision", "int4"), ("--max-batch-size", "many"), ("--flag",), ("file.npz",)]
)
def test_what_cannot_be_parsed_is_a_usage_error(export: Export, arguments: tuple[str, ...]) -> None:
    status, _, err = export(*arguments)
    assert status == 2
    assert arguments[-1] in err or arguments[0] in err


def test_an_unpublished_model_has_no_engine(export: Export) -> None:
    status, _, err = export("--tensorrt", "nothing")
    assert status == 1
    assert "config.pbtxt is missing: publish 'nothing'" in err


def test_the_list_has_every_variant(export: Export) -> None:
    status, out, _ = export("--list")
    assert status == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert list(rows) == list(VARIANTS)
    assert rows["mixer_b16"] == ["224×224", "59,880,472", "25.204"]


def test_the_process_exits_as_promised() -> None:
    """Through the interpreter, as users start it; help needs no PyTorch."""
    command = [sys.executable, "-X", "importtime", "-m", "export"]
    done = subprocess.run(
        [*command, "--help"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert "--checkpoint PATH" in done.stdout
    assert "torch" not in done.stderr
    failed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert failed.returncode == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--models", "mixer_testing", "mixer_xx"), "unknown mixer_xx; known: "),
        (("--models", "mixer_testing", "--out", "no/such/x.json"), "there is no folder no/such"),
    ],
)
def test_throughput_refuses_before_it_has_measured(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    assert throughput.main(flags) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_the_labels_of_a_training_run_come_along(export: Export, tmp_path: Path) -> None:
    """`python -m reference train` writes them beside its checkpoint."""
    path = tmp_path / "mine.npz"
    path.write_bytes(Path(CHECKPOINT).read_bytes())
    labels = [f"می\u200cخواهم {index}" for index in range(10)]
    path.with_suffix(".labels.txt").write_text("".join(f"{each}\n" for each in labels))
    status, _, err = export("--checkpoint", str(path), "--name", "mine")
    assert status == 0, err
    assert f"names come from {path.with_suffix('.labels.txt')}" in err
    written = (export.repository / "mine" / "labels.txt").read_text(encoding="utf-8")
    assert written.splitlines() == labels


def test_a_package_that_is_missing_is_named_with_the_rule_that_installs_it() -> None:
    """Also one that is imported late: --help and slips do not wait for PyTorch."""
    code = (
        "import sys; sys.modules['onnx_ir'] = None; sys.argv = ['export', '--list'];"
        "from export.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "has no package 'onnx_ir': `make export` installs" in done.stderr
