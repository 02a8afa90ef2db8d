"""`python -m loadtest` as a user runs it, for several tests."""

import contextlib
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

from tests.waiting import steady

CHECKOUT = Path(__file__).resolve().parents[2]
PATIENCE = 280.0  # seconds; most tests have less, which pytest measures
# Other programs use the machine that tests run on, and must disturb no window. What they take is a
# share of all cores, but what a CPU limit takes may be several times the window.
AMONG_OTHERS = ("--foreign-limit", "100")


def loadtest(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """To its end."""
    return subprocess.run(
        [sys.executable, "-m", "loadtest", *map(str, arguments)],
        cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip


def steady_loadtest(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """To its end, again where the machine stood still meanwhile; for what may be done twice."""
    return steady(lambda: loadtest(*arguments))


def loadtest_on_terminal(columns: int, *arguments: str | Path) -> str:
    """To its end; what stdout, a terminal of so many columns, has then. It must end with 0."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    # rich prefers these to what the terminal says.
    kept = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtest", *map(str, arguments)],
        cwd=CHECKOUT, env=kept | {"TERM": "xterm", "NO_COLOR": "1"}, stdin=theirs, stdout=theirs,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with process:
        with contextlib.suppress(OSError):  # so Linux says that nobody has the other end any more
            while read := os.read(ours, 4096):
                shown += read
        os.close(ours)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return shown.decode().replace("\r\n", "\n")
