"""Every page of the tree in Markdown: tables are whole, links lead to what there is, and commands
run as they stand."""

import re

import pytest

from tests.docs.test_readme import tracked
from tests.waiting import CHECKOUT

PAGES = sorted(name for name in tracked() if name.endswith(".md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(page: str) -> str:
    """A page without its blocks of code."""
    text = FENCE.sub("", (CHECKOUT / page).read_text(encoding="utf-8"))
    return "\n".join("" if line.startswith("    ") else line for line in text.splitlines())


def anchors(page: str) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_row_of_a_table_is_one_line(page: str) -> None:
    table = False
    for line in prose(page).splitlines():
        if table and line.strip():
            assert line.lstrip().startswith("|"), f"a row of a table is broken before {line!r}"
        if line.startswith("|"):
            assert line.rstrip().endswith("|"), f"a row of a table is broken behind {line!r}"
        table = line.lstrip().startswith("|")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_something(page: str) -> None:
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue  # another site
        name, _, anchor = link.partition("#")
        target = (CHECKOUT / page).parent / name if name else CHECKOUT / page
        assert target.exists(), f"{link} leads to nothing"
        if anchor and target.suffix == ".md":
            there = target.resolve().relative_to(CHECKOUT.resolve()).as_posix()
            assert anchor in anchors(there), f"{there} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_names_its_python(page: str) -> None:
    """Outside the environment `python` is another one, if there is one at all."""
    before, bare, _ = (CHECKOUT / page).read_text(encoding="utf-8").partition("\n    python -m ")
    assert not bare or ". .venv/bin/activate" in before
