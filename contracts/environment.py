"""What a program says where the packages that it needs are not installed.

In: the rule of the Makefile that installs them. Out: nothing, or the end of the program with a
sentence. Nothing but Python's own library is used here.
"""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def environment(rule: str, program: str) -> Iterator[None]:
    """Around imports: a package that is missing ends the program with exit status 2.

    `rule` is the Makefile's, as "export"; `program` the module, as "export" of `python -m export`.
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
