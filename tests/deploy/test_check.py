"""What `helm test` runs, asked of real gateways: an open one, and one that wants a key."""

import subprocess
import sys

from tests.stack import Gateway, Guarded
from tests.waiting import CHECKOUT


def check(url: str, keys: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", CHECKOUT / "deploy/gateway/check.py", url, keys],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_gateway_that_is_as_it_should_be_passes(gateway: Gateway, guarded: Guarded) -> None:
    for url, keys in ((gateway.url, "open"), (guarded.gateway.url, "closed")):
        done = check(url, keys)
        assert (done.returncode, done.stderr) == (0, "")


def test_one_that_asks_for_no_key_where_it_should_fails(gateway: Gateway) -> None:
    done = check(gateway.url, "closed")
    assert done.returncode == 1
    assert "/models without a key is 200, expected 401" in done.stderr


def test_a_mistake_on_the_command_line_is_one_line() -> None:
    done = check("http://127.0.0.1:1", "ajar")
    assert done.returncode == 1
    assert done.stderr == "usage: check.py URL open|closed\n"
