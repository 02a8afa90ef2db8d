"""`python -m reference COMMAND`: train, evaluate, time and compile; `--help` explains each."""

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Container
from pathlib import Path

from contracts.environment import environment

with environment("reference", "reference"):
    import tyro


def main() -> None:
    """Run the command of the command line; a user's mistake ends in one line and exit code 2."""
    _use_huge_pages()
    with environment("reference", "reference"):
        from reference import commands  # noqa: PLC0415  JAX allocates from its import on
        from reference.recipes import RECIPES  # noqa: PLC0415 - imports JAX
        from reference.stopping import Stopped  # noqa: PLC0415 - imports JAX

    handler = logging.StreamHandler()
    handler.addFilter(_is_wanted)
    # `force` removes the handlers that an imported library has set up by now.
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler], force=True)
    try:
        train = commands.train_by(*_defaults(RECIPES))
    except commands.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    app = tyro.extras.SubcommandApp()
    app.command(name="train")(train)
    app.command(name="evaluate")(commands.evaluate)
    app.command(name="few-shot")(commands.few_shot)
    app.command(name="study")(commands.study)
    app.command(name="study-report")(commands.study_report)
    app.command(name="serialize")(commands.serialize)
    app.command(name="plot")(commands.plot)
    app.command(name="throughput")(commands.throughput)
    app.command(name="compile")(commands.compile_)
    app.command(name="tables")(commands.tables)
    try:
        app.cli(prog="python -m reference")
    except commands.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.number)
    except KeyboardInterrupt as stop:
        print("; ".join(["stopped", *map(str, stop.args)]), file=sys.stderr)
        sys.exit(130)


def _defaults(known: Container[str]) -> tuple[str, Path | None]:
    """Where the defaults of `train` come from: a --recipe, or the --out that --resume goes on with.

    "" and None: from neither.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", nargs="?")
    parser.add_argument("--out", nargs="?", type=Path)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_known_args(sys.argv[1:])[0]
    # The command itself refuses an unknown recipe.
    recipe = given.recipe if given.recipe in known else ""
    return recipe, given.out if given.resume else None


def _is_wanted(record: logging.LogRecord) -> bool:
    """A filter that drops one message: JAX found no TPU, if no library for TPUs is installed.

    JAX logs this message at the level INFO, and its words are alarming.
    """
    text = record.getMessage()
    in_vain = "Unable to initialize backend 'tpu'" in text and "Failed to open libtpu.so" in text
    return not in_vain or importlib.util.find_spec("libtpu") is not None


def _use_huge_pages() -> None:
    """Start this program again with glibc's allocator on huge pages.

    glibc reads this setting from the environment only. XLA's CPU client allocates the activations
    of every step anew; with 4 KiB pages the page faults take a quarter of the training step on two
    cores. Other systems ignore the variable.
    """
    tunable = "glibc.malloc.hugetlb=1"
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = tunable
        os.execv(sys.executable, [sys.executable, "-m", "reference", *sys.argv[1:]])  # noqa: S606 - itself


if __name__ == "__main__":
    main()
