"""A number and its noun, for messages: "1 file", "2 files".

In: a number and a noun. Out: text.
"""


def counted(number: int, one: str, many: str = "") -> str:
    """The number with its noun; the plural is `many`, or `one` with an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"
