"""`report`: results to a page of Markdown with its plots, and to one HTML file.

In: result files. Out: `results.md`, its images in a folder beside it, and the HTML page. The same
results give the same page.
"""

from collections.abc import Sequence
from pathlib import Path

from loadtest.report import comparison as report_compare
from loadtest.report import page, papers
from loadtest.report.page import Block, Heading, Plot, Table, Text
from loadtest.results import Result, ResultsError

TITLE = "Measured"
MADE_BY = (
    "This page is made by `python -m loadtest report` from the files beside it. A number holds for "
    "the conditions above it and no others; compare numbers within one table."
)


def blocks(results: Sequence[Result]) -> list[Block]:
    """The whole page."""
    by_kind: dict[str, list[Result]] = {}
    for result in results:
        by_kind.setdefault(result["kind"], []).append(result)
    found: list[Block] = [Heading(TITLE, 1), Text(MADE_BY)]
    for result in by_kind.get("compare", []):
        found += report_compare.blocks(result)
        found += papers.compare_blocks(result)
        found.append(Text(f"From `{result['file']}`."))
    found += report_compare.repeat_blocks(by_kind.get("compare", []))
    for result in by_kind.get("bare", []):
        found += papers.bare_blocks(result)
    for result in by_kind.get("sweep", []):
        found += papers.sweep_blocks(result)
    if by_kind.get("compare"):
        found += papers.accuracy_blocks(by_kind["compare"])
    for result in by_kind.get("tune", []):
        found += _tune(result)
    for result in by_kind.get("evaluate", []):
        found += _evaluate(result)
    return found


def _tune(result: Result) -> list[Block]:
    rows = [
        (
            *(str(value) for value in trial["knobs"].values()),
            f"{trial['rate']:.1f}",
            report_compare.number(trial["p99_ms"], ".0f"),
            trial["note"],
        )
        for trial in result["trials"]
    ]
    names = list(result["trials"][0]["knobs"]) if result["trials"] else []
    head = (*names, "images/s within the p99", "p99, ms", "")
    about = (
        f"The most images per second with a 99th percentile of at most {result['slo_p99_ms']:g} ms."
    )
    return [
        Heading(f"Tuned: {result['model']}"),
        *([] if result["complete"] else [Text("Broken off.", wrong=True)]),
        *report_compare.conditions(result),
        Text(about),
        Table(head, rows),
    ]


def _evaluate(result: Result) -> list[Block]:
    confused = [(each["true"], each["said"], str(each["count"])) for each in result["confused"]]
    return [
        Heading(f"Accuracy: {result['model']}"),
        *([] if result["complete"] else [Text("Broken off.", wrong=True)]),
        *report_compare.conditions(result),
        Text(
            f"Top-1 {result['top1']:.2%}, top-5 {result['top5']:.2%}, of {result['pictures']} "
            f"images, {result['pictures_per_second']:.0f} per second."
        ),
        Table(("is", "was called", "times"), confused),
    ]


def write(results: Sequence[Result], markdown: Path | None, html: Path | None) -> None:
    """Write the pages that have a path, the images of Markdown into a folder beside it.

    Raises ResultsError.
    """
    content = blocks(results)
    try:
        if markdown is not None:
            folder = f"{markdown.stem}/plots"
            for block in content:
                if isinstance(block, Plot):
                    path = markdown.parent / folder / f"{block.name}.svg"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _write(path, block.svg)
            _write(markdown, page.markdown(content, folder))
        if html is not None:
            _write(html, page.html_page(TITLE, content))
    except OSError as error:
        raise ResultsError(f"{error.filename}: cannot be written: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
