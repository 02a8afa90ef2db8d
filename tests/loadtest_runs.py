"""`python -m loadtest` as a user runs it, for several tests."""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def loadtest(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """To its end."""
    return subprocess.run(
        [sys.executable, "-m", "loadtest", *map(str, arguments)],
        cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip
