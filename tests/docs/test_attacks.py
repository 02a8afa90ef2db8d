"""docs/attacks.md names tests that there are."""

import re

import pytest

from tests.waiting import CHECKOUT

PAGE = (CHECKOUT / "docs/attacks.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_every_line_is_held_by_tests_that_there_are(row: str) -> None:
    *rest, held, _ = row.split("|")
    assert len(rest) == 4
    assert all(cell.strip() for cell in (*rest[1:], held))
    named = NAMED.findall(held)
    assert named
    assert NAMED.sub("", held).strip(" ,") == ""
    for file, test in named:
        text = (CHECKOUT / "tests" / file).read_text()
        assert re.search(rf"^(?:async )?def {test}\(", text, re.MULTILINE), f"{file}::{test}"


def test_security_md_points_to_it() -> None:
    assert "docs/attacks.md" in (CHECKOUT / "SECURITY.md").read_text()
