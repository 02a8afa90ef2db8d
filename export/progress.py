"""Progress on the terminal: the step that runs, and the seconds of each finished step."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")

# Progress goes to stderr, so that stdout has nothing but results.
console = Console(stderr=True, highlight=False)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Show a spinner while the block runs (on a terminal), and then a line with its seconds."""
    start = time.monotonic()
    with console.status(title):
        yield
    console.print(f"{title}: {time.monotonic() - start:.1f} s", markup=False, soft_wrap=True)


def track(items: Sequence[Item], title: str) -> Iterable[Item]:
    """Iterate over the items, with a progress bar on the terminal."""
    if not console.is_terminal:
        return items
    return rich_track(items, description=title, console=console, transient=True)


def note(message: str) -> None:
    """Print information for the user that is not an error."""
    console.print(f"note: {message}", markup=False, soft_wrap=True)
