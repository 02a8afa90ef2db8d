"""The resize rules against timm's, torchvision's and TensorFlow's code, on made photographs.

`python -m tests.contracts.deviations FOLDER` prints the same for real ones; docs/images.md has it.
"""

import pytest

from tests.contracts.deviations import LINES, Line, deviation, other_rounding, table
from tests.photos import photo

# As photographs come: landscape, portrait, of odd sides, small, panorama, and two that are large
# enough to be decoded at a fraction if that were allowed.
SIZES = (
    *((500, 375), (375, 500), (333, 500), (334, 500), (357, 500), (640, 427), (481, 321)),
    *((500, 500), (300, 200), (137, 150), (900, 300), (1200, 1600), (1613, 1237)),
)
PHOTOGRAPHS = [photo(seed, width, height) for seed, (width, height) in enumerate(SIZES)]
# A model's input is whole levels, TensorFlow's is not: a quarter of a level is lost in the mean.
ROUNDED = 0.25


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_the_pixels_are_those_of_the_library(line: Line) -> None:
    found = deviation(line.rule, line.oracle, PHOTOGRAPHS)
    if line.rule.width < 64:  # some are decoded at a fraction of their size
        assert found.mean < 0.05
        assert found.worst_image < 0.25
    elif line.rule.rounding != "tensorflow":
        assert found.mean < 0.01
        assert found.worst_image < 0.1
        assert found.worst_pixel <= 3
    else:
        assert found.worst_image < ROUNDED + (0.1 if line.rule.antialias else 0.01)


@pytest.mark.parametrize(
    "line", [line for line in LINES if line.rule.resize == "shortest"], ids=lambda line: line.name
)
def test_the_other_rounding_is_another_model_input(line: Line) -> None:
    assert deviation(other_rounding(line.rule), line.oracle, PHOTOGRAPHS).worst_image > 1


def test_the_table_has_a_line_for_every_rule() -> None:
    lines = table(PHOTOGRAPHS[:1]).splitlines()
    assert len(lines) == 2 + len(LINES)
    assert {line.count("|") for line in lines} == {8}
