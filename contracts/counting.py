"""Counts and lists for messages: "1 file", "2 files"; "cat, dog, …".

In: a number and a noun, or names. Out: text.
"""

from collections.abc import Sequence


def counted(number: int, one: str, many: str = "") -> str:
    """The number with its noun; the plural is `many`, or `one` with an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def some_of(names: Sequence[str], most: int) -> str:
    """The first names, and an ellipsis if there are more."""
    return ", ".join([*names[:most], *["…"] * (len(names) > most)])
