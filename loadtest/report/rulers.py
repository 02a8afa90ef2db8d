"""The part of the report about independent programs that measure the same server.

In: results of the kind `rulers`. Out: blocks.
"""

from typing import Any

from loadtest.report.comparison import conditions, trouble
from loadtest.report.page import Block, Details, Facts, Heading, Table, Text
from loadtest.results import Result

ABOUT = (
    "Programs of several parties measure the same server in turn, in rounds, with a small model, "
    "so that their own cost would show. All send the same images but perf_analyzer, which sends "
    "random pixels. MLPerf's clock starts at preprocessed tensors in memory; here it starts at "
    "JPEGs, through HTTP, so these are no MLPerf results. A row says yes where the intervals have "
    "values in common: no difference was found, and wide intervals would hide a small one."
)


def blocks(result: Result) -> list[Block]:
    """All blocks of one such result."""
    return [
        Heading(f"Three rulers: {result['model']}"),
        *trouble(result | {"failures": []}),
        Text(ABOUT),
        table(result),
        *([Text(result["accuracy"])] if result.get("accuracy") else []),
        Details("What each program was asked to do", [Facts(result["programs"])]),
        conditions(result),
    ]


def table(result: Result) -> Table:
    """What each program measured, with intervals."""
    names = list(dict.fromkeys(name for row in result["rows"] for name in row["values"]))
    rows = [
        (
            row["what"],
            *(_cell(row["values"].get(name), row["digits"]) for name in names),
            row["agree"],
        )
        for row in result["rows"]
    ]
    return Table(("what", *names, "agree"), rows)


def _cell(value: dict[str, Any] | None, digits: int) -> str:
    if value is None:
        return "–"
    text = f"{value['value']:.{digits}f}"
    if value.get("low") is None:
        return text
    return f"{text} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"
