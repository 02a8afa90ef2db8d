"""What the commands share: mistakes on the command line, and where results go by default."""

import math
from pathlib import Path

from loadtest.load.sample_images import ImagesError
from loadtest.load.target import TargetError
from loadtest.results import ResultsError
from loadtest.servers.launch import StackError

RESULTS = Path("docs/results")


class UsageError(ValueError):
    """The command line asks for something that cannot be; the message is one sentence."""


USER_MISTAKES = (UsageError, ResultsError, ImagesError, StackError, TargetError)


def check_some(**flags: tuple[object, ...]) -> None:
    """Raises UsageError for the first flag without a value."""
    for name, values in flags.items():
        if not values:
            raise UsageError(f"--{name}: expected at least one")


def check_positive(**flags: tuple[float, ...]) -> None:
    """Raises UsageError for the first value that is not above zero."""
    for name, values in flags.items():
        for value in values:
            if not 0 < value < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} {value:g}: expected more than 0")
