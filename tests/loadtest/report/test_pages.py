"""The report: made from results alone, self-contained, and what is committed is what it makes."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from loadtest.report import pages
from loadtest.report.page import (
    Block,
    Details,
    Facts,
    Heading,
    Page,
    Plot,
    Table,
    Text,
    html_page,
    markdown,
    plots,
)
from loadtest.results import read, read_all, text_of
from tests.loadtest.compare import made
from tests.loadtest.runs import loadtest
from tests.waiting import CHECKOUT

RESULTS = CHECKOUT / "docs/results"


def test_the_pages_are_made_from_the_results_beside_them(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    done = loadtest("report", "--markdown", page, "--html", tmp_path / "results.html")
    assert done.returncode == 0, done.stderr
    assert page.read_text() == (CHECKOUT / "docs/results.md").read_text()
    made_pages = {each.name for each in (tmp_path / "results").glob("*.md")}
    assert made_pages == {each.name for each in RESULTS.glob("*.md")}
    for name in made_pages:
        assert (tmp_path / "results" / name).read_text() == (RESULTS / name).read_text()
    text = page.read_text() + "".join(p.read_text() for p in (tmp_path / "results").glob("*.md"))
    referred = set(re.findall(r"\]\((?:results/)?(plots/[^)]+)\)", text))
    assert referred == {f"plots/{path.name}" for path in (RESULTS / "plots").iterdir()}
    html = (tmp_path / "results.html").read_text()
    # The first page shows a plot of another page once more.
    different = {path.read_bytes() for path in (RESULTS / "plots").iterdir()}
    assert len(set(re.findall(r'src="(data:[^"]+)"', html))) == len(different)
    assert not re.search(r'(src|href)="(?!data:|#|https://)', html)


def test_every_result_states_its_conditions_in_its_name() -> None:
    kinds = ("compare", "sweep", "bare", "evaluate", "tune", "rulers")
    found = [path for kind in kinds for path in RESULTS.glob(f"{kind}_*.json")]
    assert found
    for path in found:
        result = read(path)
        assert path.name.startswith(f"{result['kind']}_{result['conditions']['date'][:10]}-")


BLOCKS: list[Block] = [
    Heading("A <title>"),
    Text("**bold** and `code` and <script>"),
    Text("it failed", wrong=True),
    Facts(["one", "[two](results/two.md)"]),
    Table(("name", "n"), [("a|b", "1.5"), ("c", "–")]),
    Plot("plot", "a plot", "<svg/>"),
    Details("folded & away", [Table(("x",), [("1",)]), Plot("inner", "another", "<svg/>")]),
]


def test_blocks_as_markdown() -> None:
    text = markdown(Page("", "Title", BLOCKS), "plots")
    assert text.startswith("# Title\n\n## A <title>\n")
    assert "| --- | ---: |\n| a\\|b | 1.5 |" in text
    assert "![a plot](plots/plot.svg)" in text
    assert "**it failed**" in text
    assert "<details><summary>folded &amp; away</summary>\n\n| x |" in text
    assert [each.name for each in plots(BLOCKS)] == ["plot", "inner"]


def test_blocks_as_html() -> None:
    html = html_page([Page("", "Title", BLOCKS), Page("two", "The second?", [Heading("A part")])])
    assert "<script>" not in html
    assert '<p class="wrong">it failed</p>' in html
    assert html.count('src="data:image/svg+xml;base64,') == 2
    assert '<td style="text-align:right">1.5</td>' in html
    assert '<h2 id="two">The second?</h2>' in html
    assert '<h3 id="two-a-part">A part</h3>' in html
    assert '<a href="#two">two</a>' in html
    assert '<li><a href="#two">The second?</a></li>' in html

    class Balance(HTMLParser):
        """Every tag is closed in order."""

        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, _attrs: object) -> None:
            if tag not in {"meta", "img", "br"}:
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    parser = Balance()
    parser.feed(html)
    assert parser.open == []


def test_a_broken_result_is_the_first_thing_on_the_page() -> None:
    points = [made.point("mixer_x", made.MIXER), made.point("vit_x", made.VIT)]
    failure = {"model": "vit_x", "load": "gateway, 8 at once", "error": "no answer", "count": 3}
    failed = made.comparison(points, ok=False, failures=[failure])
    first = pages.pages([failed])[0]
    assert first.blocks[0] == Text("Failed 3×: vit_x, gateway, 8 at once: no answer", wrong=True)
    disturbed = made.comparison(points, complete=False, disturbed="6 of 6 windows were disturbed")
    front, *others = pages.pages([disturbed])
    text = markdown(front, "plots") + "".join(markdown(each, "plots") for each in others)
    assert "Disturbed, so that it compares nothing: 6 of 6 windows were disturbed." in text
    assert "times as many" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("not json", "not a result"),
        (json.dumps({"rows": []}), "not a result of `python -m loadtest`"),
        (json.dumps({"format": 99, "kind": "compare"}), "in format 2"),
        (json.dumps({"format": 1, "kind": "compare"}), "in format 2"),
    ],
)
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: str, shown: str) -> None:
    (tmp_path / "x.json").write_text(text)
    done = loadtest("report", tmp_path / "x.json", "--markdown", tmp_path / "page.md")
    assert done.returncode == 2
    assert "x.json" in done.stderr
    assert shown in done.stderr
    assert not (tmp_path / "page.md").exists()


def test_of_a_folder_what_seems_to_be_a_result_is_not_left_out_silently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.json").write_text('{"format": 2, "kind": "comp')
    (tmp_path / "old.json").write_text(json.dumps({"format": 1, "kind": "compare"}))
    (tmp_path / "other.json").write_text(json.dumps({"rows": []}))
    (tmp_path / "right.json").write_text(json.dumps({"format": 2, "kind": "compare"}))
    assert [each["file"] for each in read_all((tmp_path,))] == ["right.json"]
    assert capsys.readouterr().err.splitlines() == [
        f"skipped: {tmp_path}/cut.json: not a result: it is no JSON",
        f"skipped: {tmp_path}/old.json: not a result of `python -m loadtest` in format 2",
    ]


def test_numbers_of_a_result_stand_in_a_line() -> None:
    found = {"kind": "x", "latencies_ms": [1.5, -2e-3, None], "names": ["a", "b"], "empty": []}
    text = text_of(found)
    assert '"latencies_ms": [1.5, -0.002, null]' in text
    assert json.loads(text) == found
