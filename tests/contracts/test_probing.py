"""The known inference by which models are probed."""

import json
from pathlib import Path

import numpy as np
import pytest

from contracts.probing import (
    GOLDEN_NAME,
    TOLERANCE,
    fault_of,
    golden_of,
    probe_pixels,
    read_golden,
    write_golden,
)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (32, 32), (224, 160)])
def test_the_image_is_three_gradients(height: int, width: int) -> None:
    y, x, channel = np.indices((height, width, 3))
    expected = ((7 * x + 13 * y + 85 * channel) % 256).astype(np.uint8)
    found = np.frombuffer(probe_pixels(height, width), np.uint8).reshape(height, width, 3)
    assert np.array_equal(found, expected)


def test_a_golden_answer_is_read_as_it_was_written(tmp_path: Path) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(1000)).tolist()
    golden = golden_of(probabilities, 32, 32)
    assert len(golden.top) == 10
    write_golden(tmp_path, golden)
    assert read_golden(tmp_path) == golden
    assert [path.name for path in tmp_path.iterdir()] == [GOLDEN_NAME]
    assert fault_of(probabilities, golden) is None


def test_other_weights_are_reported_and_rounding_is_not() -> None:
    golden = golden_of([0.7, 0.2, 0.1], 8, 8)
    assert fault_of([0.7 - 0.9 * TOLERANCE, 0.2 + 0.9 * TOLERANCE, 0.1], golden) is None
    told = fault_of([0.2, 0.7, 0.1], golden)
    assert told is not None
    assert told.startswith("gives class 0 0.2 instead of 0.7")
    assert "4 classes instead of 3" in str(fault_of([0.7, 0.2, 0.1, 0.0], golden))
    assert fault_of([float("nan"), 0.2, 0.1], golden) is not None


def test_without_a_golden_answer_it_must_be_a_distribution() -> None:
    assert fault_of([0.25, 0.75], None) is None
    assert fault_of([0.25, 0.25], None) == "has probabilities that add up to 0.5, not 1"
    assert fault_of([float("nan"), 0.5], None) is not None
    assert fault_of([], None) is not None


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        "{}",
        json.dumps({"image_sha256": "", "classes": 2, "top": {}}),
        json.dumps({"image_sha256": "", "classes": 2, "top": {"2": 0.5}}),
        json.dumps({"image_sha256": "", "classes": 2, "top": {"0": "much"}}),
    ],
)
def test_a_spoilt_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / GOLDEN_NAME).write_text(text)
    with pytest.raises(ValueError, match=GOLDEN_NAME):
        read_golden(tmp_path)


def test_a_model_may_have_none(tmp_path: Path) -> None:
    assert read_golden(tmp_path) is None
