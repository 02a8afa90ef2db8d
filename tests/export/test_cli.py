"""`python -m export` as a user calls it: what it publishes, what it prints, how it refuses."""

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from contracts.repository import TENSORRT_CONFIG
from contracts.variants import VARIANTS
from export import commands
from tests import exported
from tests.export.command_line import CHECKPOINT, Export
from tests.waiting import CHECKOUT


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
        "--labels none.txt: no such file",
    ),
    "labels of another kind": (
        ("--checkpoint", CHECKPOINT, "--name", "x", "--labels", "README.md"),
        "--labels README.md: line 2 is empty; expected 10 lines, one per class",
    ),
    "no graph": (("--onnx", "none.onnx", "--name", "x"), "--onnx none.onnx: no such file"),
    "text for a graph": (
        ("--onnx", "README.md", "--name", "x"),
        "README.md: expected an ONNX graph, found a text file that begins with '# Mixer",
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
    assert "--resize" not in err  # advice on a graph that cannot be read
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


def test_a_failure_without_words_is_named(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(commands, "run", fail)
    status, _, err = export("--checkpoint", CHECKPOINT, "--name", "x")
    assert (status, err) == (1, "error: MemoryError\n")


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
