"""What every test has in common; each room's conftest.py adds what its tests need."""

import os
from collections.abc import Generator

import pytest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where NO_SKIPS is set (in CI) a skipped test has failed: what it needs should be there."""
    report = yield
    if report.skipped and os.environ.get("NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which NO_SKIPS forbids: {report.longrepr}"
    return report
