"""Progress on the terminal: a bar that fills; nothing of it in a file.

stderr, so that stdout holds results alone.
"""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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


def note(message: str) -> None:
    """A line that stays."""
    console.print(message, markup=False, soft_wrap=True)
