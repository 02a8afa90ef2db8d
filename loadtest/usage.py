"""What the commands share: mistakes on the command line, and where results go by default."""

from pathlib import Path

from loadtest.pictures import PicturesError
from loadtest.results import ResultsError
from loadtest.stack import StackError
from loadtest.target import TargetError

RESULTS = Path("docs/results")


class UsageError(ValueError):
    """The command line asks for something that cannot be; the message is one sentence."""


USER_MISTAKES = (UsageError, ResultsError, PicturesError, StackError, TargetError)


def check_positive(**flags: tuple[float, ...]) -> None:
    """Raises UsageError for the first value that is not above zero."""
    for name, values in flags.items():
        for value in values:
            if value <= 0:
                raise UsageError(f"--{name.replace('_', '-')} {value:g}: expected more than 0")
