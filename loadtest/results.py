"""Results as files: JSON, written whole under another name and then renamed.

In: plain data of one of KINDS. Out: files that `report` reads. The file of a stopped run has
`complete` false.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from loadtest.machine import conditions

FORMAT = 2
KINDS = ("compare", "bare", "sweep", "evaluate", "tune", "rulers")
NUMBERS = re.compile(r"\[\s+((?:(?:-?[\d.e+-]+|null),?\s+)+)\]")
Result = dict[str, Any]
written: set[Path] = set()  # files of this process: a stopped command names its file


class ResultsError(ValueError):
    """A file is not a result, or cannot be written; the message names it."""


def file_name(kind: str, *about: str) -> str:
    """A file's name from the conditions: kind, time, device, models."""
    return "_".join((kind, conditions.now(), conditions.device_slug(), *about)) + ".json"


def write(path: Path, result: Result) -> None:
    """Put the result at `path`; raises ResultsError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text_of({"format": FORMAT, **result}))
        temporary.replace(path)
        written.add(path)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be written: {error.strerror}") from error


def text_of(result: Result) -> str:
    """A result as JSON, with each list of numbers on one line."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    return NUMBERS.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text) + "\n"


def read(path: Path) -> Result:
    """A result; raises ResultsError."""
    found = _document(path)
    match found:
        case {"format": 2, "kind": kind} if kind in KINDS:
            return {**found, "file": path.name}
    raise ResultsError(f"{path}: not a result of `python -m loadtest` in format {FORMAT}")


def _document(path: Path) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ResultsError(f"{path}: not a result: it is no JSON") from error


def read_all(paths: tuple[Path, ...]) -> list[Result]:
    """The results in files and folders.

    JSON of another kind in a folder is skipped. So is a file there that cannot be used although it
    seems to be a result; stderr names it. Raises ResultsError for a named file that is no result,
    and when there is no result at all.
    """
    found = []
    for path in paths:
        if not path.is_dir():
            found.append(read(path))
            continue
        for file in sorted(path.glob("*.json")):
            try:
                document = _document(file)
                if isinstance(document, dict) and document.get("kind") in KINDS:
                    found.append(read(file))
            except ResultsError as error:
                print(f"skipped: {error}", file=sys.stderr)
    if not found:
        raise ResultsError(f"{', '.join(map(str, paths))}: no results")
    return found
