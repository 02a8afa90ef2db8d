"""The locust file, run by locust's own command line against a real gateway."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.faulty_proxy import faulty_proxy, lie_one_in, stall_one_in
from tests.stack import DEFAULT_MODEL, Gateway
from tests.waiting import CHECKOUT, steady

SECONDS = 4
pytestmark = pytest.mark.timeout(300)  # a run may be repeated


def locust(url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Two users for four seconds in which the machine goes on."""
    command = [
        *(sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--host", url),
        *("--headless", "-u", "2", "-r", "100", "-t", f"{SECONDS}s", "--only-summary"),
        *("--json", "--pictures", "3", *flags),
    ]
    return steady(
        lambda: subprocess.run(
            command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=110
        )
    )


def summary(stdout: str) -> list[dict[str, float]]:
    """What --json prints at the end."""
    found: list[dict[str, float]] = json.loads(stdout[stdout.index("[") : stdout.rindex("]") + 1])
    return found


@pytest.mark.parametrize(
    "flags",
    [("--model", DEFAULT_MODEL), ("--batch", "4"), ("--arrival-rate", "20")],
    ids=["closed", "batch", "rate"],
)
def test_every_answer_is_checked(gateway: Gateway, tmp_path: Path, flags: tuple[str, ...]) -> None:
    samples = tmp_path / "samples"
    done = locust(gateway.url, "--samples", str(samples), *flags)
    assert done.returncode == 0, done.stderr
    # Nothing but the requests counts as requests.
    (asked,) = summary(done.stdout)
    assert asked["num_requests"] > 10
    assert asked["num_failures"] == 0
    assert len(np.loadtxt(samples)) == asked["num_requests"]
    for phase in ("decode", "queue", "inference", "total"):
        assert f"phase {phase}: mean " in done.stdout


def test_the_clock_starts_after_the_preparation(gateway: Gateway) -> None:
    """At a rate: all of the four seconds' requests are sent within them."""
    done = locust(gateway.url, "--arrival-rate", "25", "--arrivals", "even")
    (asked,) = summary(done.stdout)
    seconds = asked["last_request_timestamp"] - asked["start_time"]
    assert seconds == pytest.approx(SECONDS, rel=0.15)
    assert asked["num_requests"] == pytest.approx(25 * SECONDS, rel=0.15)


def test_latency_counts_from_when_a_request_was_due(gateway: Gateway, tmp_path: Path) -> None:
    """The gateway stands still for two seconds at the tenth of 25 per second, each on its own
    connection: with random gaps some are due at once, and none waits for that one; but a user that
    waits for its answer would have sent nothing meanwhile."""
    samples = tmp_path / "samples"
    with faulty_proxy(gateway.url, stall_one_in(40, 2.0)) as url:
        done = locust(url, "--arrival-rate", "25", "--samples", str(samples))
    assert done.returncode == 0, done.stderr
    found = np.loadtxt(samples)
    assert len(found) > 60  # all that were due, whatever the stall
    assert 1 <= (found >= 2000).sum() <= 4


def test_a_wrong_answer_fails_the_run(gateway: Gateway) -> None:
    with faulty_proxy(gateway.url, lie_one_in(5)) as url:
        done = locust(url)
    assert done.returncode == 1
    assert "wrong answer: place 1: 'not " in done.stderr + done.stdout


def test_a_model_that_is_not_there_is_said(gateway: Gateway) -> None:
    done = locust(gateway.url, "--model", "no_such_model")
    assert done.returncode == 1
    assert "no_such_model" in done.stderr


def test_a_run_without_a_request_fails(gateway: Gateway) -> None:
    """The first is due in an hour."""
    done = locust(gateway.url, "--arrival-rate", "0.0003", "-u", "0")
    assert done.returncode == 1
    assert "no request was answered, so nothing was tested" in done.stderr
