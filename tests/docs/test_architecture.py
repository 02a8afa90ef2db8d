"""docs/architecture.md and the tree say the same."""

import re
from pathlib import Path

import pytest

from tests.waiting import CHECKOUT

PAGE = (CHECKOUT / "docs/architecture.md").read_text()
ROOMS = ("contracts", "reference", "export", "loadtest", "server", "deploy", "tests")
# Folders that stand in the table as one: they hold the files of one program, or of one test.
INSIDE = ("server/local_triton/backends/", *(f"tests/{room}/" for room in ROOMS))


def section(title: str) -> str:
    found = re.search(rf"(?ms)^## {title}\n(.*?)(?=^## |\Z)", PAGE)
    assert found, title
    return found[1]


def folders() -> set[str]:
    """Every folder with Python files of ours, as `server/web/`."""
    files = (file for room in ROOMS for file in (CHECKOUT / room).rglob("*.py"))
    names = {f"{file.parent.relative_to(CHECKOUT).as_posix()}/" for file in files}
    return {name for name in names if not any(is_inside(name, each) for each in INSIDE)}


def is_inside(name: str, folder: str) -> bool:
    return name.startswith(folder) and name != folder


NAMED = rf"`((?:{'|'.join(ROOMS)}|docs|model_repository)/[\w./]*)`"


@pytest.mark.parametrize("name", sorted(set(re.findall(NAMED, PAGE))))
def test_what_is_named_exists(name: str) -> None:
    path = CHECKOUT / name
    assert path.is_dir() if name.endswith("/") else path.is_file()


def test_every_folder_has_a_sentence() -> None:
    rows = re.findall(r"(?m)^\| `([\w/]+/)` \| .", section("Folders"))
    assert len(rows) == len(set(rows))
    assert folders() <= set(rows)


def test_the_walk_goes_from_the_edge_to_the_engines() -> None:
    named = re.findall(r"`(server/[\w/]+\.py)`", section("One request, file by file"))
    rooms = list(dict.fromkeys(str(Path(name).parts[1]) for name in named))
    assert rooms == ["process", "web", "serving", "observability", "engines"]


def test_the_glossary_is_short_and_says_where() -> None:
    rows = re.findall(r"(?m)^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", section("Glossary"))
    terms = [row[0] for row in rows if row[0] != "term"]
    assert 15 <= len(terms) <= 25
    assert len(terms) == len(set(terms))
