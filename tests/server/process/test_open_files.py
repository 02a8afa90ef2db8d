"""Room for connections: the limit on open files is raised, as far as may be."""

import subprocess
import sys

import pytest

from tests.waiting import CHECKOUT

CODE = """
import logging, resource
from server.process import open_files
logging.basicConfig()
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
open_files.allow(1000)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "after", "warned"),
    [
        (200, 4096, "1256 4096", False),
        (200, 500, "500 500", True),
        (2000, 4096, "2000 4096", False),
    ],
)
def test_the_limit_is_raised_as_far_as_may_be(
    soft: int, hard: int, after: str, warned: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(soft=soft, hard=hard)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == after
    assert ("`ulimit -Hn 1256`" in done.stderr) is warned
