"""Progress on the terminal: a bar that fills; nothing of it in a file.

stderr, so that stdout holds results alone.
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

WIDEST = 10_000  # letters; a table is measured as if a line had so many
NARROW = 12  # letters of a title's lines where the table does not fit otherwise

console = Console(stderr=True, highlight=False)


def bar() -> Progress:
    """A bar with what is under way, how much is done and how long the rest takes."""
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
    """A spinner on the terminal while something runs that cannot say how far it is."""
    with console.status(title):
        yield


def show(table: Table) -> None:
    """A table, on stdout; each row as lines of their own where the terminal is too narrow."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(width=180, highlight=False)
    narrow = [textwrap.fill(title, NARROW, break_long_words=False) for title in table.head]
    # rich would cut what does not fit, `mod…`, which nobody can read.
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
    """A line that stays."""
    console.print(message, markup=False, soft_wrap=True)
