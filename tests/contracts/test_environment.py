"""A program whose packages are missing says what installs them."""

import subprocess
import sys

import pytest

from tests.waiting import CHECKOUT

ROOMS = {"export": "export", "reference": "reference", "loadtest": "loadtest", "server": "serve"}


def run(*arguments: str) -> str:
    """What a program that ends with 2 says."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(("room", "rule"), ROOMS.items())
def test_without_any_package_the_rule_is_named(room: str, rule: str) -> None:
    said = run("-S", "-m", room, "--help")  # -S: without site-packages
    (line,) = said.splitlines()
    assert line.startswith(f"error: {sys.executable} has no package ")
    assert f"`make {rule}`" in line
    assert line.endswith(f".venv/bin/python -m {room}")
