"""Progress on the terminal: a bar, which is not shown when the output goes to a file.

The bar goes to stderr, so that stdout has nothing but results.
"""

import contextlib
import textwrap
from collections.abc import Iterator

import rich.table
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loadtest.report.page import Table

WIDEST = 10_000  # characters of a line, for measuring the full width of a table
NARROW = 12  # characters to which titles are wrapped where a table does not fit otherwise

console = Console(stderr=True, highlight=False)


def bar() -> Progress:
    """A bar with the current work, the share that is done and the remaining time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """A spinner on the terminal while work runs that does not report its progress."""
    with console.status(title):
        yield


def show(table: Table) -> None:
    """Print a table on stdout; on a terminal that is too narrow, each row becomes several lines."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(width=180, highlight=False)
    narrow = [textwrap.fill(title, NARROW, break_long_words=False) for title in table.head]
    # rich would cut the text that does not fit (`mod…`), which is not readable.
    for head in (table.head, narrow):
        shown = rich.table.Table(highlight=False)
        for column, title in enumerate(head):
            shown.add_column(escape(title), justify="right" if table.is_number(column) else "left")
        for row in table.rows:
            shown.add_row(*map(escape, row))
        if Measurement.get(out, out.options.update(width=WIDEST), shown).maximum <= out.width:
            out.print(shown)
            return
    for row in table.rows:
        lines = (f"{title}: {cell}" for title, cell in zip(table.head, row, strict=True) if cell)
        out.print("\n".join(lines), end="\n\n", markup=False, soft_wrap=True)


def note(message: str) -> None:
    """Print a line that stays above the bar."""
    console.print(message, markup=False, soft_wrap=True)
