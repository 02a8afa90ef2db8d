"""`python -m loadtest bench`: the list of the long measurements, and how one of them is started.

A program is a module of this folder. The parameters of its `main` are its command line. A module is
imported only when it is asked for, since some programs need packages that other programs do not.
"""

import ast
import importlib
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from loadtest.usage import USER_MISTAKES

NAMES = (
    "serving", "start", "profile", "overload", "attack", "outages", "soak", "rolling",
    "replicas", "release", "queueing", "graphs", "yardstick", "gpu",
)  # fmt: skip
INDENT = max(map(len, NAMES))


def bench(arguments: Sequence[str]) -> int:
    """Run the program that the first argument names, or list all; returns the exit status."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        return list_bench()
    name, *rest = arguments
    if name not in NAMES:
        print(f"error: there is no {name!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"loadtest.bench.{name}")
    if hasattr(module, "COMMANDS"):
        return run_commands(module.COMMANDS, module.__doc__, name, rest)
    return run(module.main, rest)


def list_bench() -> int:
    """Long measurements, each a program of its own: bench NAME; bench alone lists them."""
    print("usage: python -m loadtest bench NAME [--help]\n")
    for name in NAMES:
        print(f"  {name:{INDENT}}  {summary(name)}")
    return 0


def summary(name: str) -> str:
    """The first sentence of a program's module."""
    text = (Path(__file__).parent / f"{name}.py").read_text()
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def run(main: Callable[..., int], arguments: Sequence[str] | None = None) -> int:
    """Call `main` with the command line's values; a user's mistake ends in one line on stderr."""
    module = sys.modules[main.__module__]
    options = _options(Path(module.__file__ or "").stem, arguments)
    return _careful(lambda: tyro.cli(main, description=module.__doc__, **options))


def run_commands(
    commands: Mapping[str, Callable[..., int]],
    description: str | None,
    name: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Do what `run` does, for a program with several commands."""
    options = _options(name, arguments)
    return _careful(
        lambda: tyro.extras.subcommand_cli_from_dict(
            dict(commands), description=description, **options
        )
    )


def _options(name: str, arguments: Sequence[str] | None) -> dict[str, Any]:
    return {
        "prog": f"python -m loadtest bench {name}",
        "args": arguments,
        "config": (tyro.conf.FlagCreatePairsOff,),
    }


def _careful(program: Callable[[], int]) -> int:
    # SIGTERM acts as Ctrl-C does, so that the servers that this program started end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return int(program())
    except USER_MISTAKES as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
