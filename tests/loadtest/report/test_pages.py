"""The report: made from results alone, self-contained, and what is committed is what it makes."""

import json
import re
from pathlib import Path

import pytest

from loadtest.compare.limits import GENERATOR, use
from loadtest.report.page import (
    Block,
    Facts,
    Heading,
    Plot,
    Table,
    Text,
    html_page,
    markdown,
)
from loadtest.results import read
from tests.loadtest.runs import loadtest
from tests.waiting import CHECKOUT

RESULTS = CHECKOUT / "docs/results"


def test_the_page_is_made_from_the_results_beside_it(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    done = loadtest("report", "--markdown", page, "--html", tmp_path / "results.html")
    assert done.returncode == 0, done.stderr
    assert page.read_text() == (CHECKOUT / "docs/results.md").read_text()
    referred = set(re.findall(r"\]\(results/(plots/[^)]+)\)", page.read_text()))
    assert referred
    assert referred == {f"plots/{path.name}" for path in (RESULTS / "plots").iterdir()}
    html = (tmp_path / "results.html").read_text()
    assert html.count("<img") == len(referred)
    assert not re.search(r'(src|href)="(?!data:|https://arxiv)', html)


def test_every_result_states_its_conditions_in_its_name() -> None:
    for path in RESULTS.glob("*_*_*.json"):
        found = read(path) if not path.name.startswith("tpu_") else None
        if found is not None:
            day = found["conditions"]["date"][:10]
            assert path.name.startswith(f"{found['kind']}_{day}-")


def test_blocks_as_markdown_and_as_html() -> None:
    blocks: list[Block] = [
        Heading("A <title>"),
        Text("**bold** and `code`"),
        Text("it failed", wrong=True),
        Facts(["one", "two"]),
        Table(("name", "n"), [("a|b", "1.5"), ("c", "–")]),
        Plot("plot", "a plot", "<svg/>"),
    ]
    text = markdown(blocks, "plots")
    assert "| --- | ---: |\n| a\\|b | 1.5 |" in text
    assert "![a plot](plots/plot.svg)" in text
    assert "**it failed**" in text
    html = html_page("T", blocks)
    assert "<h2>A &lt;title&gt;</h2>" in html
    assert '<p class="wrong">it failed</p>' in html
    assert "data:image/svg+xml;base64," in html


CPU = {"gateway": 2.0, "event_loop": 1.0, "triton": 1.0, "model": 3.0, "generator": 1.0}
WINDOW = {
    "seconds": 10.0, "rate": 100.0, "busy": 0.3, "late_ms": 0.0, "phases": {"decode": 1.0},
    "cpu_seconds": CPU,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, "none"),
        ({"busy": 0.95}, "model"),
        ({"phases": {"decode": 18.0}}, "decode"),
        ({"cpu_seconds": CPU | {"event_loop": 9.9}}, "gateway"),
        # Most of what the gateway uses is decoding, which is spread over the cores.
        ({"cpu_seconds": CPU | {"gateway": 9.9}}, "none"),
        ({"cpu_seconds": CPU | {"triton": 17.0}}, "Triton"),
        ({"cpu_seconds": CPU | {"generator": 9.0}}, GENERATOR),
        ({"late_ms": 50.0}, GENERATOR),
        ({"busy": 0.7, "cpu_seconds": CPU | {"model": 14.5}}, "all cores, model most"),
    ],
)
def test_the_limit_that_was_hit_is_named(changes: dict[str, object], limit: str) -> None:
    point = {"windows": [{**WINDOW, **changes}]}
    assert use(point, cores=2, workers=1).limit == limit


def test_an_event_loop_that_an_older_result_does_not_know_is_not_guessed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (older,) = RESULTS.glob("compare_2026-11-25-2300_*.json")
    assert loadtest("report", older, "--markdown", page).returncode == 0
    table = page.read_text().partition("### What was the limit")[2].partition("###")[0]
    head, _, *rows = [
        [cell.strip() for cell in line.split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    assert {row[head.index("gateway's event loop")] for row in rows} == {"–"}
    assert {row[head.index("limit")] for row in rows} == {"model", "none"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("not json", "not a result"),
        (json.dumps({"rows": []}), "not a result of `python -m loadtest`"),
        (json.dumps({"format": 99, "kind": "compare"}), "in format 1"),
    ],
)
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: str, shown: str) -> None:
    (tmp_path / "x.json").write_text(text)
    done = loadtest("report", tmp_path / "x.json", "--markdown", tmp_path / "page.md")
    assert done.returncode == 2
    assert "x.json" in done.stderr
    assert shown in done.stderr
    assert not (tmp_path / "page.md").exists()
