"""Shared parts of the commands: mistakes on the command line, and default folders for files.

Files go outside the checkout, into the folders of the XDG specification for a user's data:
https://specifications.freedesktop.org/basedir-spec/latest/
"""

import math
import os
from pathlib import Path

from loadtest.load.sample_images import ImagesError
from loadtest.load.target import TargetError
from loadtest.results import ResultsError
from loadtest.rulers.programs import RulerError
from loadtest.servers.launch import StackError

NAME = "mixer-serving"
DISTURBED = 3  # exit status: other programs used this machine too much for a measurement


def results_folder() -> Path:
    """The folder for results of commands without --out."""
    return _folder("XDG_DATA_HOME", ".local/share") / "results"


def models_folder() -> Path:
    """The folder for models that are made for a measurement."""
    return _folder("XDG_CACHE_HOME", ".cache") / "models"


def _folder(variable: str, default: str) -> Path:
    stated = os.environ.get(variable, "")
    # The specification says that relative paths are to be ignored.
    base = Path(stated) if Path(stated).is_absolute() else Path.home() / default
    return base / NAME


class UsageError(ValueError):
    """The command line asks for something impossible; the message is one sentence."""


USER_MISTAKES = (UsageError, ResultsError, ImagesError, StackError, TargetError, RulerError)


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
