"""Progress on the terminal: a bar that fills; nothing of it in a file.

stderr, so that stdout holds results alone.
"""

import contextlib
from collections.abc import Iterator

import rich.table
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loadtest.page import Table

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
    """A table, on stdout."""
    shown = rich.table.Table(highlight=False)
    for column, title in enumerate(table.head):
        shown.add_column(title, justify="right" if table.is_number(column) else "left")
    for row in table.rows:
        shown.add_row(*map(escape, row))
    out = Console()
    (out if out.is_terminal else Console(width=180)).print(shown)


def note(message: str) -> None:
    """A line that stays."""
    console.print(message, markup=False, soft_wrap=True)
