"""Fixtures of the tests of export/."""

from pathlib import Path

import pytest

from tests.export.command_line import Export


@pytest.fixture
def export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Export:
    return Export(tmp_path, monkeypatch, capsys)
