"""Fixtures of the tests of export/."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from export import __main__


@pytest.fixture
def export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs the command line; the exit status, and what it prints."""

    def run(*arguments: str) -> tuple[int, str]:
        flags = [*arguments, "--repository", str(tmp_path / "repository")]
        monkeypatch.setattr(sys, "argv", ["export", *flags])
        status = __main__.main()
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run
