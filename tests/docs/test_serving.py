"""docs/serving.md and the gateway's problems say the same."""

import re

from server.problems import CLASSES
from tests.waiting import CHECKOUT

PAGE = (CHECKOUT / "docs/serving.md").read_text()


def test_every_problem_has_its_row() -> None:
    rows = set(re.findall(r"^\| (\d+) \| `([a-z-]+)` \|", PAGE, re.MULTILINE))
    assert rows == {(str(int(problem.status)), problem.name) for problem in CLASSES}
