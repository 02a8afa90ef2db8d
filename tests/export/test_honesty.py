"""Calibration and the score of how unlike the classes an image is, held against other libraries."""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.stats import mannwhitneyu

from contracts.model_config import parameters, read_config
from export import __main__, honesty
from export.graph import open_graph
from export.honesty import Calibration, Unsure, auroc, calibration_error, fitted
from tests import exported

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def sample(count: int = 4000, classes: int = 7, sharpness: float = 3.0) -> tuple[Floats, Labels]:
    """Logits of a model that is `sharpness` times too sure, and labels drawn as is right."""
    random = np.random.default_rng(5)
    logits = random.normal(0, 2, (count, classes))
    powers = np.exp(logits)
    shares = powers / powers.sum(1, keepdims=True)
    labels = np.array([random.choice(classes, p=row) for row in shares])
    return (logits * sharpness).astype(np.float32), labels


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_the_temperature_is_that_of_the_least_cross_entropy(sharpness: float) -> None:
    """By SciPy's search on PyTorch's cross-entropy; and what the logits were multiplied by."""
    logits, labels = sample(sharpness=sharpness)
    given, right = torch.from_numpy(logits).double(), torch.from_numpy(labels)

    def loss(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(given / temperature, right))

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-8})
    found = fitted(logits, labels)
    assert found == pytest.approx(best.x, rel=1e-4)
    assert found == pytest.approx(sharpness, rel=0.1)
    assert loss(found) <= loss(best.x) + 1e-12


def test_the_calibration_error_is_that_of_the_paper() -> None:
    """Bin by bin, as Guo et al. write it, with bins that are open on the left."""
    logits, labels = sample()
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    expected = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = [
            (row.max(), row.argmax() == label)
            for row, label in zip(shares, labels, strict=True)
            if low < float(row.max()) <= high
        ]
        if inside:
            accuracy = np.mean([right for _, right in inside])
            confidence = np.mean([float(share) for share, _ in inside])
            expected += len(inside) / len(labels) * abs(accuracy - confidence)
    assert calibration_error(shares, labels) == pytest.approx(expected, abs=1e-6)
    assert expected > 0.1
    cooled = np.exp(logits / 3 - (logits / 3).max(1, keepdims=True))
    assert calibration_error(cooled / cooled.sum(1, keepdims=True), labels) < 0.03
    sure = np.eye(4, dtype=np.float32)
    assert calibration_error(sure, np.arange(4)) == 0
    assert calibration_error(sure, np.array([1, 2, 3, 0])) == 1


def test_the_area_is_that_of_mann_and_whitney() -> None:
    random = np.random.default_rng(1)
    own, others = random.normal(1, 1, 200).round(1), random.normal(0, 1, 90).round(1)
    statistic = mannwhitneyu(own, others).statistic
    assert auroc(own, others) == pytest.approx(statistic / (200 * 90))
    assert auroc(own, own) == pytest.approx(0.5)
    assert auroc(own + 100, others) == 1


def test_a_score_that_does_not_tell_is_not_published() -> None:
    for area, published in ((0.8499, False), (0.85, True)):
        found = Calibration(1.5, 100, 0.2, 0.1, Unsure(area, 100, 50, 7.5))
        assert ("unsure_below_logit" in found.parameters()) == published
        assert found.parameters()["unsure_auroc"] == f"{area:.3f}"
        assert ("and is published" in str(found)) == published
    assert "unsure_auroc" not in Calibration(1.5, 100, 0.2, 0.1, None).parameters()


def folders(path: Path, names: list[str], each: int) -> Path:
    """Images of random colours, in a folder for each name."""
    random = np.random.default_rng(0)
    for name in names:
        (path / name).mkdir(parents=True)
        for number in range(each):
            pixels = random.integers(0, 256, (4, 4, 3), np.uint8)
            image = Image.fromarray(pixels).resize((40, 40), Image.Resampling.BICUBIC)
            image.save(path / name / f"{number}.png")
    return path


def test_the_published_graph_answers_with_the_temperature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = exported.classifier("mixer_tiny")
    names = [f"thing {number}" for number in range(classifier.num_classes)]
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in names))
    held = folders(tmp_path / "held", names[:4], 40)
    (held / names[4]).mkdir()
    others = folders(tmp_path / "others", ["x"], 25)
    checkpoint = exported.GOLDEN / "mixer_tiny/checkpoint.npz"

    def export(*flags: str) -> tuple[int, str]:
        fixed = ["--checkpoint", str(checkpoint), "--labels", str(tmp_path / "labels.txt")]
        arguments = [*fixed, "--name", "m", "--repository", str(tmp_path / "models"), *flags]
        monkeypatch.setattr(sys, "argv", ["export", *arguments])
        status = __main__.main()
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    status, printed = export("--held-back", str(held), "--others", str(others))
    assert status == 0, printed
    assert "expected calibration error" in printed
    assert f"--held-back {held}: no image of thing 4\n" in printed
    about = parameters(read_config(tmp_path / "models/m/config.pbtxt"))
    assert about["calibration_images"] == "80"
    temperature = float(about["temperature"])
    assert float(about["ece_after"]) <= float(about["ece_before"])
    # Of noise with labels at random nothing can be told.
    assert float(about["unsure_auroc"]) < 0.85
    assert "unsure_below_logit" not in about
    images, expected = exported.golden_logits("mixer_tiny")
    session = open_graph(tmp_path / "models/m/1/model.onnx")
    logits, found = session.run(["logits", "probabilities"], {"image": images})
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5)
    given = torch.from_numpy(logits / np.float32(temperature))
    np.testing.assert_allclose(found, torch.softmax(given, 1).numpy(), rtol=0, atol=1e-6)
    for flags, says in (
        (("--others", str(others)), "needs --held-back"),
        (("--held-back", str(tmp_path / "none")), "no such folder"),
        (("--held-back", str(others)), "'x' is no class"),
        (("--held-back", str(folders(tmp_path / "few", names[:2], 3))), "at least 100"),
        (("--held-back", str(held), "--others", str(held / names[0])), ""),
    ):
        status, printed = export(*flags)
        assert (status == 0) == (not says)
        assert says in printed


def test_probabilities_that_are_no_softmax_are_refused() -> None:
    model = ir.load(exported.graph("mixer_tiny"))
    outputs = {value.name: value for value in model.graph.outputs}
    node = outputs["probabilities"].producer()
    assert node is not None
    node.op_type = "Sigmoid"
    with pytest.raises(ValueError, match="no softmax"):
        honesty.insert_temperature(model, 2.0)
