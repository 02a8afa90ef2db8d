"""`python -m loadtest compare`, against a real Triton and a real gateway, also faulty ones."""

import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient import grpc as triton_grpc

from loadtest.compare.measure import Load, visit
from loadtest.compare.points import latencies_of, recorded_ratio
from loadtest.load import sample_images
from loadtest.load.triton_target import Triton, TritonTarget
from loadtest.results import read
from loadtest.stats.percentiles import percentile
from server.local_triton.stubs import children
from server.local_triton.supervisor import LocalTriton
from tests import sleepy_models
from tests.faulty_proxy import Fault, drop_one_in, faulty_proxy, lie_one_in, stall_one_in
from tests.loadtest.runs import (
    AMONG_OTHERS,
    loadtest,
    loadtest_on_terminal,
    steady_loadtest,
)
from tests.stack import DEFAULT_MODEL, Gateway, running_triton
from tests.waiting import CHECKOUT, steady, wait_for

QUICK, SLOW = 0.02, 0.04  # seconds per image; models that sleep are not slower among others

pytestmark = pytest.mark.timeout(900)  # windows that hold many batches take their time


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sleepy")
    sleepy_models.publish(folder, "mixer_quick", QUICK)
    sleepy_models.publish(folder, "vit_slow", SLOW)
    return folder


@pytest.fixture(scope="module")
def sleepy_triton(repository: Path) -> Iterator[LocalTriton]:
    with running_triton(repository) as running:
        yield running


@pytest.fixture(scope="module")
def compared(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A comparison that started its own servers."""
    out = tmp_path_factory.mktemp("results") / "compare.json"
    done = steady_loadtest(
        *("compare", "--models", "mixer_quick", "vit_slow", "--repository", repository),
        *("--concurrency", "4", "--rates", "8", "--seconds", "2", "--open-seconds", "4"),
        *("--warm", "0.2", "--pictures-sent", "4", "--limit-minutes", "0.1", "--out", out),
        *AMONG_OTHERS,
    )
    assert done.returncode == 0, done.stderr
    assert "mixer_quick answers" in done.stdout
    return read(out)


def point(result: dict[str, Any], model: str, way: str, rate: float = 0.0) -> dict[str, Any]:
    """The point of a result that has this load."""
    wanted = (model, way, rate)
    (found,) = (p for p in result["points"] if (p["model"], p["way"], p["rate"]) == wanted)
    return dict(found)


@pytest.mark.parametrize("way", ["gateway", "triton"])
def test_half_the_speed_shows_as_half(compared: dict[str, Any], way: str) -> None:
    quick, slow = (point(compared, model, way) for model in ("mixer_quick", "vit_slow"))
    ratio = recorded_ratio(slow, quick)
    assert ratio is not None
    assert ratio.low <= 2 <= ratio.high or ratio.value == pytest.approx(2, rel=0.05)
    assert ratio.differs
    assert quick["rate_measured"] / slow["rate_measured"] == pytest.approx(2, rel=0.1)
    assert quick["milliseconds"]["50"] * 2 == pytest.approx(slow["milliseconds"]["50"], rel=0.1)
    # What Triton says of itself agrees: a sleeping model computes for the time that it sleeps.
    for found, seconds in ((quick, QUICK), (slow, SLOW)):
        per_image = [each["compute_ms"] / each["average_batch"] for each in found["windows"]]
        assert statistics.median(per_image) == pytest.approx(1e3 * seconds, rel=0.15)


def test_a_comparison_has_everything_that_a_number_depends_on(compared: dict[str, Any]) -> None:
    assert compared["complete"]
    assert compared["ok"]
    assert {"cpu", "gpu", "date", "Triton", "onnxruntime in the local Triton"} <= set(
        compared["conditions"]
    )
    open_loop = point(compared, "mixer_quick", "gateway", 8.0)
    assert open_loop["rate_measured"] == pytest.approx(8, rel=0.3)
    for found in compared["points"]:
        assert len(found["windows"]) == (1 if found["rate"] else 4)
        for window in found["windows"]:
            roles = {"gateway", "event_loop", "triton", "model", "generator"}
            assert set(window["cpu_seconds"]) == roles
            assert window["machine"]["foreign_cores"] >= 0
            assert len(window["latencies_ms"]) >= window["images"] - 8
    busy = point(compared, "mixer_quick", "gateway")["windows"][0]
    assert set(busy["phases"]) == {"decode", "queue", "inference", "total"}
    assert 0 < busy["cpu_seconds"]["event_loop"] < busy["cpu_seconds"]["gateway"]


def test_straight_at_triton_agrees_with_an_independent_client(sleepy_triton: LocalTriton) -> None:
    """Four threads with Triton's own blocking client, counted by hand."""
    sent = sample_images.load(None, 4)

    async def ours() -> float:
        triton = Triton(sleepy_triton.grpc_url)
        target = await TritonTarget.prepare(triton, "mixer_quick", sent, "fp32")
        found, window = await visit(
            target, Load("triton", 4), model="mixer_quick", number=0, warm=0.3, seconds=1.5,
            triton=triton, instances=1, servers={},
        )  # fmt: skip
        await triton.close()
        assert not window.errors
        return found.rate

    def theirs() -> float:
        answers: list[float] = []
        end = time.perf_counter() + 1.8

        def client() -> None:
            connection = triton_grpc.InferenceServerClient(sleepy_triton.grpc_url)
            tensor = triton_grpc.InferInput("image", (1, 32, 32, 3), "UINT8")
            tensor.set_data_from_numpy(sent[0].pixels(32, 32)[None])
            while time.perf_counter() < end:
                connection.infer("mixer_quick", [tensor])
                answers.append(time.perf_counter())
            connection.close()

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        inside = [at for at in sorted(answers) if at > end - 1.5]
        return (len(inside) - 1) / (inside[-1] - inside[0])

    # A machine that stumbles spoils one pair of windows; a client that counts wrongly spoils all.
    ratios = [steady(lambda: asyncio.run(ours()) / theirs()) for _ in range(3)]
    assert statistics.median(ratios) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        pytest.param(drop_one_in(100), "no answer", id="drops 1 %"),
        pytest.param(lie_one_in(50), "wrong answer: place 1: 'not ", id="a wrong answer"),
    ],
)
def test_a_fault_anywhere_fails_the_run(
    gateway: Gateway, triton: LocalTriton, tmp_path: Path, fault: Fault, shown: str
) -> None:
    out = tmp_path / "compare.json"
    with faulty_proxy(gateway.url, fault) as url:
        done = loadtest(
            *("compare", "--models", DEFAULT_MODEL, "--url", url, "--triton", triton.grpc_url),
            # Some hundreds of answers on a busy machine too, of which one in a hundred is at fault.
            *("--concurrency", "8", "--rates", "100", "--seconds", "3.5", "--warm", "0.1"),
            *("--open-seconds", "1.2", "--limit-minutes", "0.01", "--pictures-sent", "2"),
            *("--rounds", "1", "--max-rounds", "1", "--out", out, *AMONG_OTHERS),
        )
    assert done.returncode == 1
    assert "FAILED" in done.stderr
    assert shown in done.stderr
    result = read(out)
    assert not result["ok"]
    page = tmp_path / "page.md"
    assert loadtest("report", out, "--markdown", page).returncode == 0
    assert f"{DEFAULT_MODEL}, gateway, 8 at once: {shown}" in page.read_text()


def test_a_slow_answer_in_fifty_is_in_the_p99(
    gateway: Gateway, triton: LocalTriton, tmp_path: Path
) -> None:
    """Two in a hundred take a second: the p99 must have it, the p90 must not."""
    out = tmp_path / "compare.json"
    with faulty_proxy(gateway.url, stall_one_in(50, 1.0)) as url:
        done = steady_loadtest(
            *("compare", "--models", DEFAULT_MODEL, "--url", url, "--triton", triton.grpc_url),
            *("--concurrency", "8", "--rates", "60", "--seconds", "3", "--open-seconds", "12"),
            *("--warm", "0.1", "--limit-minutes", "0.01", "--pictures-sent", "2"),
            *("--rounds", "4", "--max-rounds", "4", "--out", out, *AMONG_OTHERS),
        )
    assert done.returncode == 0, done.stderr
    result = read(out)
    found = percentile(latencies_of(point(result, DEFAULT_MODEL, "gateway", 60.0)), 99)
    assert found is not None
    assert found.low >= 1000
    closed = percentile(latencies_of(point(result, DEFAULT_MODEL, "gateway")), 90)
    assert closed is not None
    assert closed.high < 1000


def test_random_arrivals_wait_where_even_ones_do_not(repository: Path, tmp_path: Path) -> None:
    """A model that is busy 0.6 of the time, alone: even arrivals never meet, random ones do."""
    slow = {}
    for arrivals in ("even", "poisson"):
        out = tmp_path / f"{arrivals}.json"
        done = steady_loadtest(
            *("compare", "--models", "mixer_quick", "--repository", repository, "--out", out),
            *("--concurrency", "1", "--rates", "30", "--arrivals", arrivals, "--seconds", "0.5"),
            *("--open-seconds", "8", "--warm", "0.3", "--pictures-sent", "2"),
            *("--rounds", "1", "--max-rounds", "1", "--limit-minutes", "0.01", *AMONG_OTHERS),
        )
        assert done.returncode == 0, done.stderr
        found = percentile(latencies_of(point(read(out), "mixer_quick", "gateway", 30.0)), 90)
        assert found is not None
        slow[arrivals] = found
    assert slow["poisson"].low > slow["even"].value
    assert slow["poisson"].value > 1.3 * slow["even"].value


def test_a_foreign_load_has_a_status_of_its_own_and_no_ratios(
    repository: Path, tmp_path: Path
) -> None:
    """One core is taken by a program that is not ours."""
    out = tmp_path / "compare.json"
    spin = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(spin, start_new_session=True) as foreign:
        try:
            done = loadtest(
                *("compare", "--models", "mixer_quick", "vit_slow", "--repository", repository),
                *("--concurrency", "4", "--rates", "8", "--seconds", "0.6", "--warm", "0.1"),
                *("--pictures-sent", "2", "--out", out),
            )
        finally:
            foreign.kill()
    assert done.returncode == 3, done.stderr
    assert re.search(
        r"DISTURBED: \d of \d windows .* other programs took [\d.]+ cores", done.stderr
    )
    assert "times as many" not in done.stdout
    result = read(out)
    assert not result["complete"]
    page = tmp_path / "page.md"
    assert loadtest("report", out, "--markdown", page).returncode == 0
    assert "Disturbed, so that it compares nothing" in page.read_text()
    assert "times as many" not in (tmp_path / "page/speed.md").read_text()


def test_ctrl_c_before_the_first_window_names_no_file(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "compare.json"
    out.write_text("an older result")
    command = (
        *(sys.executable, "-m", "loadtest", "compare", "--models", "mixer_quick"),
        *("--repository", repository, "--out", out, "--rates", "5", "--warm", "60"),
    )
    process = subprocess.Popen(
        [*map(str, command)], cwd=CHECKOUT, stderr=subprocess.PIPE, start_new_session=True
    )
    with process:
        # The gateway that it starts, and the Triton of that one.
        wait_for(lambda: [each for pid in children(process.pid) for each in children(pid)])
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.decode().strip() == "stopped; nothing had been measured yet"
    assert out.read_text() == "an older result"


def test_a_narrow_terminal_shows_whole_values(
    gateway: Gateway, triton: LocalTriton, tmp_path: Path
) -> None:
    shown = loadtest_on_terminal(
        80,
        *("compare", "--models", DEFAULT_MODEL, "--url", gateway.url, "--triton", triton.grpc_url),
        *("--concurrency", "1", "--rates", "20", "--seconds", "0.3", "--warm", "0.1"),
        *("--rounds", "2", "--max-rounds", "2", "--pictures-sent", "2", "--open-seconds", "0.5"),
        *("--limit-minutes", "0.01", "--out", tmp_path / "compare.json", *AMONG_OTHERS),
    )
    assert re.search(rf"model: {DEFAULT_MODEL}\nimages/s: [\d.]+ \(-?[\d.]+ to [\d.]+\)\n", shown)
    assert f"model: {DEFAULT_MODEL}\nway: gateway\nload: 1 at once\n" in shown
    assert re.search(r"\ngenerator late, ms: [\d.]+\nlimit: \w+", shown)
    assert "…" not in shown


def test_what_was_measured_before_ctrl_c_can_be_read(repository: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "compare.json", tmp_path / "page.md"
    command = (
        *(sys.executable, "-m", "loadtest", "compare", "--models", "mixer_quick"),
        *("--repository", repository, "--out", out, "--seconds", "0.3", "--warm", "0.1"),
        *("--rates", "5", "--rounds", "100", "--max-rounds", "100", "--pictures-sent", "2"),
        *AMONG_OTHERS,
    )
    process = subprocess.Popen(
        [*map(str, command)], cwd=CHECKOUT, stderr=subprocess.PIPE, start_new_session=True
    )
    with process:
        wait_for(out.exists, what="the first window")
        started = children(process.pid)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"stopped; what had been measured is in {out}".encode() in errors
    assert started
    assert not any(Path(f"/proc/{child}").exists() for child in started)
    assert not json.loads(out.read_text())["complete"]
    assert loadtest("report", out, "--markdown", page).returncode == 0
    assert "Broken off" in page.read_text()


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (("--models", "mixer_quick", "mixer_quick"), "one is there twice"),
        (
            ("--models", "mixer_quick", "no_such_model"),
            "error: no_such_model is neither a model of {repository} (mixer_quick, vit_slow) nor "
            "a variant, which `python -m export --list` lists",
        ),
        (("--models", "../mixer_quick"), "expected letters, digits"),
        (("--models", "mixer_quick", "--concurrency"), "--concurrency: expected at least one"),
        (("--models", "mixer_quick", "--seconds", "nan"), "--seconds nan: expected more than 0"),
        (
            ("--models", "mixer_quick", "--url", "http://127.0.0.1:9"),
            "error: --url needs --triton, as they belong together: --url is the gateway's address, "
            "--triton HOST:PORT of the gRPC of its Triton, which `make serve` prints",
        ),
        (("--models", "mixer_quick", "--seconds", "0"), "--seconds 0: expected more than 0"),
        (("--models", "mixer_quick", "--images", "/no/such/folder"), "/no/such/folder"),
        (
            ("--models", "mixer_quick", "--url", "http://127.0.0.1:9", "--triton", "127.0.0.1:9"),
            "127.0.0.1:9",
        ),
    ],
)
def test_a_mistake_is_one_line(
    repository: Path, tmp_path: Path, flags: tuple[str, ...], shown: str
) -> None:
    out = tmp_path / "compare.json"
    done = loadtest("compare", *flags, "--repository", repository, "--out", out)
    assert done.returncode == 2
    assert shown.format(repository=repository) in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
