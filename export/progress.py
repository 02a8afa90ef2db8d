"""Progress on the terminal: which step runs, and for how long the finished ones took."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")

# stderr, so that stdout holds results alone.
console = Console(stderr=True, highlight=False)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Show a spinner while the block runs (on a terminal), and then a line with its seconds."""
    start = time.monotonic()
    with console.status(title):
        yield
    console.print(f"{title}: {time.monotonic() - start:.1f} s", markup=False, soft_wrap=True)


def track(items: Sequence[Item], title: str) -> Iterable[Item]:
    """The items, with a bar that fills on the terminal while they are used up."""
    if not console.is_terminal:
        return items
    return rich_track(items, description=title, console=console, transient=True)


def note(message: str) -> None:
    """Say something that the user should know and that is no error."""
    console.print(f"note: {message}", markup=False, soft_wrap=True)
