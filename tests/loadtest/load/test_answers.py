"""What counts as a wrong answer, and what is only rounding."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from loadtest.load import answers, sample_images

PROBABILITIES = (0.5, 0.2, 0.1, 0.0500001, 0.05, 0.03)
ANSWER: dict[str, Any] = {
    "model": "m",
    "version": "1",
    "predictions": [
        {"label": f"class {index}", "index": index, "probability": probability}
        for index, probability in enumerate(PROBABILITIES)
    ],
}
RIGHT = answers.record(ANSWER, tolerance=1e-3)


def answer(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first five predictions, changed."""
    changed = copy.deepcopy(ANSWER)
    del changed["predictions"][5]
    change(changed)
    return changed


@pytest.mark.parametrize(
    "change",
    [
        lambda _: None,
        lambda a: a["predictions"][0].update(probability=0.5 * (1 + 5e-4)),
        lambda a: a["predictions"].__setitem__(slice(3, 5), a["predictions"][4:2:-1]),
    ],
    ids=["the same", "the last digit", "equals in another order"],
)
def test_rounding_is_right(change: Callable[[dict[str, Any]], object]) -> None:
    assert not answers.wrong(answer(change), RIGHT)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda a: a["predictions"][0].update(label="dog"), "place 1: 'dog'"),
        (lambda a: a["predictions"][0].update(probability=0.49), "place 1"),
        (lambda a: a["predictions"][1].update(probability=math.nan), "place 2"),
        (lambda a: a["predictions"].reverse(), "place 1"),
        (lambda a: a["predictions"].__setitem__(1, a["predictions"][0]), "twice"),
        (lambda a: a["predictions"][4].update(index=9), "place 5"),
        (lambda a: a["predictions"].pop(), "4 predictions, expected 5"),
        (lambda a: a["predictions"].clear(), "not an answer"),
        (lambda a: a["predictions"][2].pop("label"), "not a prediction"),
        (lambda a: a.update(model="other"), "'other' answered"),
        (lambda a: a.pop("version"), "not an answer"),
    ],
)
def test_anything_else_is_wrong(change: Callable[[dict[str, Any]], object], shown: str) -> None:
    assert shown in answers.wrong(answer(change), RIGHT)


@pytest.mark.parametrize("document", [None, [], "text", {"detail": "busy"}])
def test_what_is_no_answer_is_wrong(document: object) -> None:
    assert answers.wrong(document, RIGHT)


def test_rows_of_probabilities() -> None:
    right = np.array([[0.7, 0.2, 0.1]], np.float32)
    assert not answers.wrong_rows(right * np.float32(1.0001), right, 1e-3)
    assert "differs by" in answers.wrong_rows(right[:, ::-1], right, 1e-3)
    assert "differs by" in answers.wrong_rows(right * np.float32(np.nan), right, 1e-3)
    assert "shape [1, 2]" in answers.wrong_rows(right[:, :2], right, 1e-3)


def test_made_images_are_like_photos_and_the_same_for_the_same_seed() -> None:
    one, again, other = sample_images.make(1), sample_images.make(1), sample_images.make(2)
    assert one == again
    assert one.data != other.data
    assert 50_000 < len(one.data) < 200_000  # ImageNet's have 110 kB on average
    assert one.pixels(375, 500).std() > 20


def test_images_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "deeper"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("not sent")
    assert [each.name for each in sample_images.load(folder.parent, 2)] == ["0.png", "1.png"]
    (folder / "0.png").write_bytes(b"not an image")
    with pytest.raises(sample_images.ImagesError, match=r"0\.png is not an image"):
        sample_images.load(folder, 2)
    (folder / "0.png").unlink()
    (folder / "0.png").symlink_to("gone.png")
    with pytest.raises(sample_images.ImagesError, match=r"0\.png cannot be read: No such file"):
        sample_images.load(folder, 2)


@pytest.mark.parametrize(
    ("provenance", "precision"),
    [
        ({}, "fp32"),
        ({"precision": "fp16"}, "fp16"),
        ({"precision": "fp32", "HINT_BF16": "YES"}, "bf16"),
        ({"precision": "int8", "HINT_BF16": "YES"}, "int8"),
    ],
)
def test_bfloat16_may_round_as_coarsely_as_int8(provenance: dict[str, str], precision: str) -> None:
    found = answers.precision_of(provenance)
    assert found == precision
    assert (answers.TOLERANCE[found] == answers.TOLERANCE["int8"]) == (found in {"bf16", "int8"})
