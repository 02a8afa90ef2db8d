"""Independent programs on one server: what is read from them, and that they agree where they must.

MLPerf LoadGen and wrk are real here, and measure a server whose speed is known.
"""

import json
import math
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.results import read
from loadtest.rulers import programs
from loadtest.rulers.agreement import LOADGEN, OURS, WRK, Row, compared, interval, overlap
from loadtest.rulers.loadgen import Task, parsed
from loadtest.rulers.programs import RulerError
from tests.http_server import Handler, serving
from tests.loadtest.runs import AMONG_OTHERS, loadtest, steady_loadtest
from tests.waiting import steady

SECONDS = 0.02
NEEDS_LOADGEN = pytest.mark.skipif(
    not programs.loadgen_is_there(), reason="needs mlcommons-loadgen, which has no wheel here"
)
NEEDS_WRK = pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk: apt install wrk")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Answers each POST after 20 ms with the class that is its body's length modulo 10."""

    class Classifier(Handler):
        disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement

        def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(SECONDS)
            answer = json.dumps({"predictions": [{"index": len(body) % 10}]}).encode()
            if body == b"null":
                answer = body
            self.answer(500 if b"fail" in body else 200, answer)

    with serving(Classifier) as address:
        yield address


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Three bodies, of 1, 2 and 3 bytes."""
    found = []
    for number in (1, 2, 3):
        (tmp_path / f"{number}.jpg").write_bytes(b"x" * number)
        found.append(str(tmp_path / f"{number}.jpg"))
    return found


@NEEDS_LOADGEN
@pytest.mark.parametrize(
    ("scenario", "connections", "rate"), [("SingleStream", 1, 50), ("Offline", 4, 200)]
)
def test_loadgen_measures_what_the_server_does(
    server: str, images: list[str], scenario: str, connections: int, rate: float
) -> None:
    task = Task(server, "/classify", images, scenario, 70, connections)
    found = steady(lambda: programs.loadgen_numbers(programs.loadgen(task)), 0.1)
    assert 0.6 * rate < found["rate"] < rate
    if scenario == "SingleStream":
        assert 1e3 * SECONDS <= found["p50"] < 2e3 * SECONDS


@NEEDS_LOADGEN
def test_loadgen_sends_at_random_times_and_in_eights(server: str, images: list[str]) -> None:
    task = Task(server, "/classify", images, "Server", 80, 16, rate=40)
    found = programs.loadgen(task)
    assert found["result_scheduled_samples_per_sec"] == pytest.approx(40, rel=0.5)
    assert programs.loadgen_numbers(found)["p50"] >= 1e3 * SECONDS
    eights = programs.loadgen(Task(server, "/classify", images, "MultiStream", 10, 8))
    assert 1e3 * SECONDS <= programs.loadgen_numbers(eights)["p50"] < 8e3 * SECONDS


@NEEDS_LOADGEN
def test_each_seed_has_random_times_of_its_own(server: str, images: list[str]) -> None:
    """Else every round would have the same queues, and no interval would have the luck of them."""

    def scheduled(seed: int) -> float:
        task = Task(server, "/classify", images, "Server", 40, 16, rate=60, seed=seed)
        return float(programs.loadgen(task)["result_scheduled_samples_per_sec"])

    first = scheduled(1)
    assert scheduled(1) == first
    assert scheduled(2) != first


@NEEDS_LOADGEN
def test_loadgens_accuracy_mode_has_the_answers(server: str, images: list[str]) -> None:
    task = Task(server, "/classify", images, "Offline", 3, 2, accuracy=True)
    assert programs.loadgen(task)["answers"] == {"0": 1, "1": 2, "2": 3}


@NEEDS_LOADGEN
@pytest.mark.parametrize("body", [b"fail", b"null"])
def test_a_request_that_fails_fails_loadgen(server: str, tmp_path: Path, body: bytes) -> None:
    (tmp_path / "bad.jpg").write_bytes(body)
    task = Task(server, "/classify", [str(tmp_path / "bad.jpg")], "SingleStream", 5, 1)
    with pytest.raises(RulerError, match="LoadGen, SingleStream: 5 requests failed"):
        programs.loadgen(task)


@NEEDS_WRK
def test_wrk_measures_what_the_server_does(server: str, images: list[str]) -> None:
    wrk = shutil.which("wrk")
    assert wrk is not None
    found = steady(lambda: programs.wrk(wrk, server, "/classify", images, at_once=4, seconds=1.2))
    assert 100 < found["rate"] < 200
    assert 1e3 * SECONDS <= found["p50"] < 2e3 * SECONDS


@NEEDS_WRK
def test_a_request_that_fails_fails_wrk(server: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"fail")
    with pytest.raises(RulerError, match=r"wrk: \d+ requests failed"):
        programs.wrk(
            shutil.which("wrk") or "", server, "/classify", [str(tmp_path / "bad.jpg")],
            at_once=1, seconds=1,
        )  # fmt: skip


def test_perf_analyzer_is_read(tmp_path: Path) -> None:
    """A stand-in writes the file that perf_analyzer 2.60 writes: few machines have its glibc."""
    program = tmp_path / "perf_analyzer"
    program.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\n"
        "assert '--request-distribution' in sys.argv\n"
        "assert sys.argv[sys.argv.index('-m') + 1] == 'm'\n"
        "pathlib.Path(sys.argv[sys.argv.index('-f') + 1]).write_text(\n"
        "    'Concurrency,Inferences/Second,Client Send,p50 latency,p90 latency,p95 latency,'\n"
        "    'p99 latency\\n1,452.5,10,2100,2500,2700,4000\\n')\n"
    )
    program.chmod(0o755)
    found = programs.perf_analyzer(str(program), "127.0.0.1:1", "m", rate=200.0, seconds=1.0)
    assert found == {"rate": 452.5, "p50": 2.1, "p90": 2.5, "p99": 4.0}
    program.write_text("#!/bin/sh\necho it fails >&2\nexit 1\n")
    with pytest.raises(RulerError, match="perf_analyzer: it fails"):
        programs.perf_analyzer(str(program), "127.0.0.1:1", "m", at_once=1, seconds=1.0)


def test_loadgens_log_is_read() -> None:
    log = (
        ':::MLLOG {"key": "loadgen_version", "value": "6"}\nsomething else\n'
        ':::MLLOG {"key": "result_validity", "value": "VALID"}\n'
        ':::MLLOG {"key": "early_stopping_met", "value": true}\n'
    )
    assert parsed(log) == {"result_validity": "VALID", "early_stopping_met": True}


ROW = Row("images/s", "rate", {OURS: "a", LOADGEN: "b", WRK: "c"})


def test_programs_agree_where_their_intervals_meet() -> None:
    runs = {
        "a": {n: {"rate": 100.0 + n} for n in range(5)},
        "b": {n: {"rate": 101.0 + n} for n in range(5)},
    }
    found = compared(ROW, runs)
    assert found is not None
    assert set(found["values"]) == {OURS, LOADGEN}
    assert found["agree"] == "yes"
    assert compared(ROW, {"a": runs["a"]}) is None
    few = {run: {n: rounds[n] for n in range(2)} for run, rounds in runs.items()}
    assert (compared(ROW, few) or {})["agree"] == ""


def test_programs_that_differ_are_named_with_the_factor() -> None:
    runs = {
        "a": {n: {"rate": 100.0 + n} for n in range(5)},
        "c": {n: {"rate": 0.8 * (100 + n)} for n in range(5)},
    }
    found = compared(ROW, runs)
    assert found is not None
    assert found["agree"] == "NO: wrk ÷ this engine 0.80 (0.80 to 0.80)"


def test_an_interval_is_never_below_zero() -> None:
    found = interval([1.0, 10.0, 100.0])
    assert found["value"] == 10
    assert found["low"] is not None
    assert 0 < found["low"] < 1
    few = interval([1.0, 2.0])
    assert few["low"] is None
    assert few["value"] == pytest.approx(math.sqrt(2))
    assert overlap(few, found)


@NEEDS_LOADGEN
@NEEDS_WRK
@pytest.mark.timeout(600)  # a run may be repeated
def test_three_rulers_on_the_shipped_model(tmp_path: Path) -> None:
    """All of it once, through the command; how far they agree is for a quiet machine to say."""
    out = tmp_path / "rulers.json"
    done = steady_loadtest(
        *("rulers", "--rounds", "1", "--seconds", "1", "--queries", "70", "--pictures-sent", "4"),
        *("--out", out, *AMONG_OTHERS),
    )
    assert done.returncode == 0, done.stderr
    result = read(out)
    assert result["complete"]
    measured = {row["what"]: set(row["values"]) for row in result["rows"]}
    assert measured["1 at once (SingleStream), images/s"] == {OURS, LOADGEN, WRK}
    assert "4 of 4 answers name the class" in result["accuracy"]
    programs_there = {each.partition(" (")[0].partition(":")[0] for each in result["programs"][:-1]}
    assert programs_there == set().union(*measured.values())
    page = tmp_path / "page.md"
    assert loadtest("report", out, "--markdown", page).returncode == 0
    assert "| 1 at once (SingleStream), images/s |" in (tmp_path / "page/rulers.md").read_text()
