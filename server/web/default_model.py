"""The default model, named in a file that is read again on changes, and the command to set it.

In: a file whose first line is the model's name; the second, if there is one, is the name before.
Out: every worker of every gateway that reads the file uses that model for requests that name none,
within a second and without a restart, but never a model that is not served. `python -m server
default NAME` writes the file, whole or not at all, and `--back` exchanges its two lines. Everybody
who may write the file can change the model, as with the file of API keys.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from server.engines.engine import Engine
from server.engines.model import Unusable
from server.problems import Problem
from server.settings import CHECKOUT, PREFIX

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
MOST_BYTES = 4096
VARIABLE = f"{PREFIX}DEFAULT_MODEL_FILE"


class DefaultModelError(ValueError):
    """The file cannot be used; the message says why."""


class DefaultModel:
    """Follows the changes of one file within `LOOK_SECONDS`, while `watch` runs."""

    def __init__(self, path: Path, otherwise: str) -> None:
        """`otherwise` is the default model while the file is empty or not there."""
        self._path = path
        self._otherwise = otherwise
        self._said = ""  # what was logged last

    def name(self) -> str:
        """The model that is to be the default. Raises `DefaultModelError`."""
        return next(iter(read(self._path)), self._otherwise)

    async def watch(self, engine: Engine) -> None:
        """Let the engine follow the file, for ever; off the event loop: a disk may be slow."""
        while True:
            try:
                self._follow(engine, await asyncio.to_thread(self.name))
            except DefaultModelError as error:
                self._say(f"{error}; the default model stays {engine.default!r}")
            await asyncio.sleep(LOOK_SECONDS)

    def _follow(self, engine: Engine, name: str) -> None:
        if name == engine.default:
            self._said = ""
            return
        try:
            entry = engine.entry(name)
            reason = entry.problem.detail if isinstance(entry, Unusable) else ""
        except Problem as problem:
            reason = problem.detail
        if reason:
            self._say(
                f"the default model stays {engine.default!r}: {self._path} names {name!r}, which "
                f"is not served: {reason}"
            )
            return
        before, engine.default = engine.default, name
        self._said = ""
        logger.info("the default model is %s now, and was %s", name, before)

    def _say(self, message: str) -> None:
        if message != self._said:
            self._said = message
            logger.error("%s", message)


def read(path: Path) -> list[str]:
    """The names in the file, at most two; none if it is not there. Raises `DefaultModelError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DefaultModelError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise DefaultModelError(f"{path} has more than {MOST_BYTES} bytes, expected a model's name")
    try:
        lines = [line.strip() for line in data.decode().splitlines()]
    except UnicodeDecodeError:
        raise DefaultModelError(f"{path} is no text in UTF-8") from None
    return [line for line in lines if line][:2]


def write(path: Path, names: Sequence[str]) -> None:
    """Write the file anew, whole or not at all. Raises `DefaultModelError`."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        partial.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        # Everybody who could read the file may still read it: the gateway may run as another user.
        partial.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise DefaultModelError(f"{path} cannot be written: {error.strerror}") from None


def reversed_names(path: Path, names: list[str]) -> list[str]:
    """The names with the former one first. Raises `DefaultModelError` if there is none."""
    if len(names) < 2:
        raise DefaultModelError(f"{path} names no model from before")
    return names[::-1]


def main(arguments: Sequence[str]) -> int:
    """`python -m server default [NAME | --back] [--file FILE]`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m server default",
        description="Let running gateways use another default model, without a restart; without "
        "NAME, show which it is. They follow within a second, if they serve it.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the model to use from now on")
    parser.add_argument("--back", action="store_true", help="use the one from before again")
    parser.add_argument(
        "--file",
        type=Path,
        default=os.environ.get(VARIABLE),
        help=f"the file that the gateways have as --default-model-file; or {VARIABLE}",
    )
    options = parser.parse_args(arguments)
    if options.file is None:
        parser.error(f"--file FILE, or {VARIABLE}, says which file")
    if options.back and options.name:
        parser.error("NAME or --back, not both")
    if options.name is not None and (not options.name.strip() or len(options.name.split("\n")) > 1):
        parser.error("NAME is the name of a model")
    path: Path = options.file
    try:
        names = read(path)
        if options.back:
            names = reversed_names(path, names)
            write(path, names)
        elif options.name is not None and options.name.strip() != next(iter(names), None):
            names = [options.name.strip(), *names[:1]]
            write(path, names)
    except DefaultModelError as error:
        print(f"python -m server default: {error}", file=sys.stderr)
        return 1
    now, *before = names or ["what --default-model says"]
    print(f"{path}: the default model is {now}" + (f", before {before[0]}" if before else ""))
    if options.name is not None or options.back:
        warn_of_unknown(now)
        print(
            "Each gateway decides: one that does not serve the model keeps its own, and logs why;"
        )
        print("GET /models lists what a gateway serves.")
    return 0


def warn_of_unknown(name: str) -> None:
    """Warn if the model repository here lacks the model; gateways may serve that of elsewhere."""
    repository = Path(os.environ.get(f"{PREFIX}REPOSITORY") or CHECKOUT / "model_repository")
    try:
        names = sorted(each.name for each in repository.expanduser().iterdir() if each.is_dir())
    except (OSError, RuntimeError):
        return  # there is no repository here
    if name not in names:
        print(
            f"python -m server default: warning: {repository} has no model {name!r}; "
            f"there are: {', '.join(names) or 'none'}",
            file=sys.stderr,
        )
