"""`python -m reference COMMAND`: train, evaluate, time and compile; `--help` explains each."""

import logging
import os
import sys

import tyro


def main() -> None:
    """Run the command of the command line; a user's mistake ends in one line and exit code 2."""
    _use_huge_pages()
    from reference import commands  # noqa: PLC0415  JAX allocates from its import on

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    app = tyro.extras.SubcommandApp()
    app.command(name="train")(commands.train)
    app.command(name="evaluate")(commands.evaluate)
    app.command(name="plot")(commands.plot)
    app.command(name="throughput")(commands.throughput)
    app.command(name="compile")(commands.compile_)
    app.command(name="tables")(commands.tables)
    try:
        app.cli(prog="python -m reference")
    except commands.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the last checkpoint is whole: go on with --resume", file=sys.stderr)
        sys.exit(130)


def _use_huge_pages() -> None:
    """Start again with glibc's allocator on huge pages, which it reads from the environment only.

    XLA's CPU client allocates every step's activations anew; with 4 KiB pages the page faults cost
    a quarter of the training step on two cores. Other systems ignore the variable.
    """
    tunable = "glibc.malloc.hugetlb=1"
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = tunable
        os.execv(sys.executable, [sys.executable, "-m", "reference", *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    main()
