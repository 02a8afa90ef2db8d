"""The locust file, run by locust's own command line against a real gateway."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.faulty_proxy import faulty_proxy, lie_one_in
from tests.stack import DEFAULT_MODEL, Gateway
from tests.waiting import CHECKOUT


def locust(url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Two users for four seconds, which begin before they know what to send."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--host", url),
            *("--headless", "-u", "2", "-r", "100", "-t", "4s", "--only-summary", "--json"),
            *("--pictures", "3", *flags),
        ],
        cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    "flags",
    [("--model", DEFAULT_MODEL), ("--batch", "4"), ("--arrival-rate", "20")],
    ids=["closed", "batch", "rate"],
)
def test_every_answer_is_checked(gateway: Gateway, tmp_path: Path, flags: tuple[str, ...]) -> None:
    samples = tmp_path / "samples"
    done = locust(gateway.url, "--samples", str(samples), *flags)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout[done.stdout.index("[") :])}
    (asked,) = (row for name, row in rows.items() if name.startswith("/classify"))
    assert asked["num_requests"] > 10
    assert asked["num_failures"] == 0
    # The phases of Server-Timing have rows of their own, and the samples are ours.
    for phase in ("decode", "queue", "inference", "total"):
        assert rows[phase]["num_requests"] == asked["num_requests"]
    assert len(np.loadtxt(samples)) == asked["num_requests"]
    if "--arrival-rate" in flags:
        # From the first answer to the last: locust's four seconds begin before the plan is made.
        seconds = asked["last_request_timestamp"] - asked["start_time"]
        assert (asked["num_requests"] - 1) / seconds == pytest.approx(20, rel=0.2)


def test_a_wrong_answer_fails_the_run(gateway: Gateway) -> None:
    with faulty_proxy(gateway.url, lie_one_in(5)) as url:
        done = locust(url)
    assert done.returncode == 1
    assert "wrong answer: place 1: 'not " in done.stderr + done.stdout


def test_a_model_that_is_not_there_is_said(gateway: Gateway) -> None:
    done = locust(gateway.url, "--model", "no_such_model")
    assert done.returncode == 1
    assert "no_such_model" in done.stderr
