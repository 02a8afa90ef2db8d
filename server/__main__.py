"""`python -m server`: the gateway. `classify`, `similar`, `key` and `default` are other programs.

In: flags and `MIXER_` variables. Out: what the chosen program does, and its exit status; 2 when a
setting is wrong. Each program is imported when it is chosen: importing the gateway takes half a
second of CPU, and neither a command nor a wrong setting has to wait for that.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence

# gRPC would log a warning whenever a local Triton is started; that child process does not use gRPC
# of this process.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from contracts.environment import environment

with environment("serve", "server"):
    from server.settings import SettingsError, read


# The programs beside the gateway, and the module of each.
COMMANDS = {
    "classify": "server.client",
    "similar": "server.similar",
    "key": "server.web.api_keys",
    "default": "server.web.default_model",
}


def main() -> int:
    """Run the chosen program to its end; returns the exit status."""
    if sys.argv[1:2] == ["serve"]:  # as SageMaker starts a container
        del sys.argv[1]
    command = command_of(sys.argv[1]) if len(sys.argv) > 1 else None
    if command is not None:
        return command(sys.argv[2:])
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        close = difflib.get_close_matches(sys.argv[1], COMMANDS, 1)
        guess = f"; did you mean {close[0]}?" if close else ""
        print(
            f"python -m server: there is no command {sys.argv[1]!r}; there are: "
            f"{', '.join(COMMANDS)}, and without one the gateway starts{guess}",
            file=sys.stderr,
        )
        return 2
    try:
        settings = read(sys.argv[1:])
    except SettingsError as error:
        print(f"python -m server: {error}", file=sys.stderr)
        return 2
    with environment("serve", "server"):
        from server.process import program  # noqa: PLC0415 - see above
    return program.run(settings)


def command_of(name: str) -> Callable[[Sequence[str]], int] | None:
    """The program beside the gateway that has this name."""
    if name not in COMMANDS:
        return None
    with environment("serve", "server"):
        command: Callable[[Sequence[str]], int] = importlib.import_module(COMMANDS[name]).main
    return command


if __name__ == "__main__":
    sys.exit(main())
