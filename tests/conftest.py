"""What every test has in common; each room's conftest.py adds what its tests need."""

import os
import signal
from collections.abc import Generator
from typing import TypeVar

import pytest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported
# A shell without job control starts what runs in the background without Ctrl-C, and so would be the
# programs that the tests start, of which some are interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return forbid_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that is skipped as a whole, as by `importorskip`, has no tests to report."""
    return forbid_skip((yield))


def forbid_skip(report: Report) -> Report:
    """Where NO_SKIPS is set (in CI) what is skipped has failed: what it needs should be there."""
    if report.skipped and os.environ.get("NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which NO_SKIPS forbids: {report.longrepr}"
    return report
