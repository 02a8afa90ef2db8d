"""`python -m loadtest COMMAND`: compare, report, evaluate, sweep, bare, tune, rulers, bench.

`--help` explains each; `bench` lists the long measurements, each a program of its own.

Exit status: 0 done and right, 1 a request failed or an answer was wrong, 2 a mistake on the command
line or something that cannot be reached, 3 other programs used the machine too much, 130 stopped.
"""

import signal
import sys
from collections.abc import Callable

from contracts.environment import environment

with environment("loadtest", "loadtest"):
    import tyro

    from loadtest import results
    from loadtest.bench.programs import bench, list_bench
    from loadtest.commands import comparison as commands
    from loadtest.commands import models as commands_models
    from loadtest.commands import rulers as commands_rulers
    from loadtest.commands import served as commands_served
    from loadtest.usage import USER_MISTAKES

COMMANDS: dict[str, Callable[..., int]] = {
    "compare": commands.compare,
    "report": commands.report,
    "bare": commands_models.bare,
    "sweep": commands_models.sweep,
    "evaluate": commands_served.evaluate,
    "tune": commands_served.tune,
    "rulers": commands_rulers.rulers,
    # `main` takes its command line first; here it is named in the help and in a mistake's message.
    "bench": list_bench,
}


def main() -> int:
    """Run the command of the command line; a user's mistake ends in one line on stderr."""
    if sys.argv[1:2] == ["bench"]:
        return bench(sys.argv[2:])
    app = tyro.extras.SubcommandApp()
    for name, command in COMMANDS.items():
        app.command(name=name)(command)
    # SIGTERM acts as Ctrl-C does, so that the servers that this program started end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return int(
            app.cli(
                prog="python -m loadtest",
                description=__doc__,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
            or 0
        )
    except USER_MISTAKES as error:
        print(f"error: {error}", file=sys.stderr)
        if results.written:
            print(_kept(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {_kept()}", file=sys.stderr)
        return 130


def _kept() -> str:
    files = ", ".join(map(str, results.written))
    return f"what had been measured is in {files}" if files else "nothing had been measured yet"


if __name__ == "__main__":
    sys.exit(main())
