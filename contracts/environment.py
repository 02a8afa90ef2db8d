"""The message of a program that needs packages which are not installed.

In: the rule of the Makefile that installs the packages. Out: nothing, or the program ends with a
one-sentence message. Imports only the standard library.
"""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def environment(rule: str, program: str) -> Iterator[None]:
    """A context around imports: a missing package ends the program with exit status 2.

    `rule` is the rule's name, for example "export"; `program` is the module's name, for example
    "export" in `python -m export`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        print(
            f"error: {sys.executable} has no package {package!r}: `make {rule}` installs what this "
            f"needs into .venv; then .venv/bin/python -m {program}",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
