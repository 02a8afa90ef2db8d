"""`python -m loadtest evaluate`: the accuracy that users get, against the JAX reference's."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from loadtest import truth
from loadtest.load.sample_images import ImagesError
from loadtest.results import read
from tests.loadtest.runs import loadtest, steady_loadtest
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, Gateway
from tests.waiting import CHECKOUT

pytestmark = pytest.mark.timeout(400)  # a run may be repeated


@pytest.fixture(scope="module")
def sample_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """test/<class>/*.png, 60 images, in folders for the model's classes in order."""
    root = tmp_path_factory.mktemp("pictures")
    with np.load(CHECKOUT / f"reference/trained/{DEFAULT_MODEL}.npz") as arrays:
        classes = len(arrays["head/bias"])
    for number in range(60):
        folder = root / f"test/class_{number % classes}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(photo(number, 60 + number, 50, "PNG"))
    return root


def percentages(text: str) -> list[float]:
    """Top-1 and top-5 accuracy, as both programs print them."""
    found = re.search(r"top-1 accuracy ([\d.]+)%[^,]*, top-5 ([\d.]+)%", text)
    assert found, text
    return [float(found[1]), float(found[2])]


def test_the_accuracy_is_that_of_the_reference(
    gateway: Gateway, sample_images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "evaluate.json"
    done = steady_loadtest(
        *(
            "evaluate",
            "--data",
            sample_images / "test",
            "--model",
            DEFAULT_MODEL,
            "--url",
            gateway.url,
        ),
        *("--batch", "8", "--parallel", "3", "--out", out),
    )
    assert done.returncode == 0, done.stderr
    reference = subprocess.run(
        [
            *(sys.executable, "-m", "reference", "evaluate", "--data", str(sample_images)),
            *("--checkpoint", f"reference/trained/{DEFAULT_MODEL}.npz"),
        ],
        cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert percentages(done.stdout) == pytest.approx(percentages(reference.stdout), abs=0.1)
    result = read(out)
    assert result["pictures"] == 60
    wrong = round(60 * (1 - result["top1"]))
    assert 0 < sum(each["count"] for each in result["confused"]) <= wrong


def test_an_image_that_is_not_classified_fails_the_run(
    gateway: Gateway, sample_images: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "data"
    for folder in sorted((sample_images / "test").iterdir()):
        (broken / folder.name).mkdir(parents=True)
    (broken / "class_0/good.png").write_bytes(photo(1, 50, 50, "PNG"))
    (broken / "class_0/broken.png").write_bytes(b"not an image")
    out = tmp_path / "evaluate.json"
    done = steady_loadtest(
        *("evaluate", "--data", broken, "--model", DEFAULT_MODEL, "--url", gateway.url),
        *("--out", out),
    )
    assert done.returncode == 1
    assert "class_0/broken.png" in done.stderr
    assert f"{broken}: no image of class_1, class_2, class_3" in done.stderr
    assert ", on 1 image, " in done.stdout
    assert read(out)["pictures"] == 1


def test_a_model_that_is_not_served_is_said_with_the_reason(
    gateway: Gateway, model_repository: Path, sample_images: Path, tmp_path: Path
) -> None:
    late = model_repository / "late"  # Triton, which runs already, has not loaded it
    shutil.copytree(model_repository / DEFAULT_MODEL, late)
    config = late / "config.pbtxt"
    config.write_text(config.read_text().replace(f'name: "{DEFAULT_MODEL}"', 'name: "late"'))
    flags = ("--data", sample_images / "test", "--model", "late", "--url", gateway.url)
    try:
        done = loadtest("evaluate", *flags, "--out", tmp_path / "evaluate.json")
    finally:
        shutil.rmtree(late)
    assert done.returncode == 2
    said = "error: late is not served: Triton has not loaded model 'late': a model that was added"
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_too_high_names_the_one_below(
    gateway: Gateway, sample_images: Path, tmp_path: Path
) -> None:
    done = loadtest(
        *("evaluate", "--data", sample_images, "--model", DEFAULT_MODEL, "--url", gateway.url),
        *("--out", tmp_path / "evaluate.json"),
    )
    assert done.returncode == 2
    assert f"; did you mean {sample_images}/test?" in done.stderr
    # Two classes, and the folders train and test: as many, so that names alone tell nothing.
    for name in ("test", "train"):
        (tmp_path / name).mkdir()
    with pytest.raises(ImagesError, match=r"no images; .*; did you mean .*/test\?"):
        truth.from_folders(tmp_path, ["cat", "dog"])


def test_folders_are_classes_by_name_or_by_order(tmp_path: Path) -> None:
    labels = ["dog", "cat"]
    for name in labels:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    assert [each.classes for each in truth.from_folders(tmp_path, labels)] == [(1,), (0,)]
    assert [each.classes for each in truth.from_folders(tmp_path, ["a", "b"])] == [(0,), (1,)]
    with pytest.raises(ImagesError, match="among them cat, dog, for a model of 3 classes"):
        truth.from_folders(tmp_path, ["a", "b", "c"])


def test_imagenet_with_the_original_and_the_real_labels(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"ILSVRC2012_val_{number:08d}.JPEG").touch()
    labels, real = tmp_path / "val.txt", tmp_path / "real.json"
    labels.write_text("".join(f"ILSVRC2012_val_{n:08d}.JPEG {n + 60}\n" for n in (1, 2, 3)))
    found = truth.imagenet(tmp_path, labels, None)
    assert [each.classes for each in found] == [(61,), (62,), (63,)]
    real.write_text(json.dumps([[61, 5], [], [63]]))
    found = truth.imagenet(tmp_path, None, real)
    assert [(each.file.stem[-1], each.classes) for each in found] == [("1", (61, 5)), ("3", (63,))]
    labels.write_text("490\n361\n171\n")
    with pytest.raises(ImagesError, match=r"val\.txt, line 1: expected NAME\.JPEG CLASS"):
        truth.imagenet(tmp_path, labels, None)
    labels.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ImagesError, match=r"val\.txt: expected lines .* found no text"):
        truth.imagenet(tmp_path, labels, None)
    real.write_text("{}")
    with pytest.raises(ImagesError, match=r"real\.json: not ReaL's real\.json: expected a list"):
        truth.imagenet(tmp_path, None, real)
