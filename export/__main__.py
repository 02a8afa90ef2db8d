"""`python -m export`: checkpoints into Triton's model repository; `--help` explains each flag.

`python -m export throughput` is a program of its own: the speed of the bare PyTorch models.

Exit status: 0 done, 1 it could not be done, 2 a mistake on the command line or in a file.
"""

import sys

from contracts.environment import environment

with environment("export", "export"):
    import tyro

    from export.options import Options, UsageError


def main() -> int:
    """Run the command line; a user's mistake ends in one line on stderr."""
    if sys.argv[1:2] == ["throughput"]:
        with environment("export", "export"):
            from export import throughput  # noqa: PLC0415 - imports PyTorch

        return throughput.main(sys.argv[2:])
    options = tyro.cli(
        Options,
        prog="python -m export",
        config=(tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff),
    )
    try:
        options.check()
        # PyTorch takes seconds to import; --help and a mistake on the command line come first.
        with environment("export", "export"):
            from export import commands  # noqa: PLC0415 - imports PyTorch
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        commands.run(options)
    except commands.USER_MISTAKES as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except commands.FAILURES as error:
        print(f"error: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was published", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
