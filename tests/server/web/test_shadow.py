"""A second model that shadows the default one, and the command that exchanges them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from server.local_triton.supervisor import LocalTriton
from tests import tiny_models
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, Gateway, Guarded, running_gateway, running_triton
from tests.waiting import CHECKOUT, wait_for

IMAGES = [photo(seed, 64, 48) for seed in range(30)]


def client_of(gateway: Gateway) -> httpx.Client:
    return httpx.Client(base_url=gateway.url, trust_env=False, timeout=30)


def compares(client: httpx.Client, count: int) -> None:
    """Wait until so many copies have been compared."""
    wait_for(lambda: comparison(client)["compared"] == count, what=f"{count} comparisons")


def comparison(client: httpx.Client) -> dict[str, Any]:
    found = client.get("/shadow").json()["comparisons"]
    return dict(found[0]) if found else {"compared": 0, "copies": {}}


def probabilities(client: httpx.Client, image: bytes, model: str) -> list[float]:
    query = {"model": model, "top_k": "10"}
    rows = client.post("/classify", params=query, content=image).json()["predictions"]
    return [row["probability"] for row in sorted(rows, key=lambda row: int(row["index"]))]


class Users:
    """Two clients that ask all the time, until told to end; what they saw."""

    def __init__(self, url: str) -> None:
        self.answers: list[tuple[int, str]] = []  # status and model
        self._url = url
        self._end = threading.Event()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=60) as client:
            number = 0
            while not self._end.is_set():
                response = client.post("/classify", content=IMAGES[number % len(IMAGES)])
                self.answers.append((response.status_code, response.json().get("model", "")))
                number += 1
                time.sleep(0.005)

    @contextmanager
    def asking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._end.set()
            for thread in threads:
                thread.join()


def test_the_report_is_what_both_models_say(tmp_path: Path) -> None:
    tiny_models.publish(tmp_path / "models", "first", seed=0)
    tiny_models.publish(tmp_path / "models", "second", seed=1)
    flags = ("--engine", "onnxruntime", "--repository", str(tmp_path / "models"))
    more = ("--default-model", "first", "--shadow", "second:100%")
    with (
        running_gateway(tmp_path / "log", *flags, *more) as gateway,
        client_of(gateway) as client,
    ):
        report = client.get("/shadow").json()
        assert report == {"share": 1.0, "comparisons": []}
        disagree = set()
        js, difference = [], []
        for number, image in enumerate(IMAGES):
            one, two = (np.array(probabilities(client, image, m)) for m in ("first", "second"))
            compares(client, 2 * number + 1)
            answer = client.post(
                "/classify", content=image, headers={"X-Request-ID": f"image-{number}"}
            )
            assert answer.status_code == 200
            if one.argmax() != two.argmax():
                disagree.add(f"image-{number}")
            middle = (one + two) / 2
            js.append(sum((p * np.log2(p / middle)).sum() for p in (one, two)) / 2)
            difference.append(np.abs(one - two).mean())
            compares(client, 2 * number + 2)
        found = comparison(client)
        assert (found["model"], found["candidate"]) == ("first", "second")
        assert found["copies"] == {"compared": 60}
        assert found["agreement"] == pytest.approx(1 - len(disagree) / 30)
        assert 0 < len(disagree) < 30
        assert found["divergence"] == pytest.approx(np.mean(js), abs=1e-5)
        assert found["difference"] == pytest.approx(np.mean(difference), abs=1e-5)
        for side in ("served_milliseconds", "shadow_milliseconds"):
            assert 0 < found[side]["p50"] <= found[side]["p99"]
            assert found[side]["mean"] > 0
        named = {each["request_id"] for each in found["examples"]}
        assert {name for name in named if name.startswith("image")} <= disagree
        assert len(found["examples"]) == min(20, 2 * len(disagree))
        times = [each["time"] for each in found["examples"]]
        assert times == sorted(times, reverse=True)
        text = client.get("/metrics").text
        pair = 'candidate="second",model="first"'
        assert f'mixer_shadow_copies_total{{{pair},outcome="compared"}} 60.0' in text
        # Copies are nobody's images: only what users sent is counted.
        assert "mixer_image_pixels_count 90.0" in text
        # A model that is asked for by name is not copied, nor what was refused.
        client.post("/classify?model=second", content=IMAGES[0])
        client.post("/classify", content=b"hello")
        # Every protocol's requests are.
        client.post("/hf", content=IMAGES[0])
        compares(client, 61)
        form = [("image", ("a.jpg", image)) for image in IMAGES[:3]]
        client.post("/classify/batch", files=form)
        compares(client, 64)


def test_without_a_shadow_there_is_no_report(gateway: Gateway, guarded: Guarded) -> None:
    with client_of(gateway) as client:
        response = client.get("/shadow")
        assert response.status_code == 404
        assert "--shadow candidate:5%" in response.json()["detail"]
    with client_of(guarded.gateway) as client:
        assert client.get("/shadow").status_code == 401


@pytest.mark.timeout(240)
def test_users_notice_nothing_when_the_candidate_hangs_or_dies(
    triton: LocalTriton, tmp_path: Path
) -> None:
    """The candidate has a Triton of its own, which is stopped, goes on, and is killed."""
    tiny_models.publish(tmp_path / "models", "candidate", seed=1)
    (tmp_path / "models/candidate/labels.txt").write_bytes(
        (CHECKOUT / f"model_repository/{DEFAULT_MODEL}/labels.txt").read_bytes()
    )
    with running_triton(tmp_path / "models") as other:
        flags = (
            *("--triton-url", f"{triton.grpc_url},{other.grpc_url}"),
            *("--default-model", DEFAULT_MODEL, "--shadow", "candidate:100%"),
            *("--request-timeout", "2"),
        )
        with running_gateway(tmp_path / "log", *flags) as gateway, client_of(gateway) as client:

            def compared() -> int:
                return int(comparison(client)["compared"])

            wait_for(lambda: client.get("/models/candidate").status_code == 200, what="it")
            users = Users(gateway.url)
            with users.asking():
                wait_for(lambda: compared() > 20, what="comparisons")
                assert other.pid is not None
                os.kill(other.pid, signal.SIGSTOP)
                stopped = compared()
                try:
                    wait_for(
                        lambda: comparison(client)["copies"].get("failed", 0) >= 1, what="a failure"
                    )
                    assert compared() <= stopped + 3
                    for _ in range(5):
                        assert client.get("/readyz").status_code == 200
                        time.sleep(0.3)
                finally:
                    os.kill(other.pid, signal.SIGCONT)
                wait_for(lambda: compared() > stopped + 20, 60, what="comparisons again")
                os.kill(other.pid, signal.SIGKILL)
                killed = compared()
                failed = comparison(client)["copies"]["failed"]
                wait_for(
                    lambda: comparison(client)["copies"]["failed"] > failed, 60, what="a failure"
                )
                assert client.get("/readyz").status_code == 200
                # Its supervisor starts it again, and it is compared again.
                wait_for(lambda: compared() > killed + 20, 90, what="comparisons at last")
            assert len(users.answers) > 200
            assert set(users.answers) == {(200, DEFAULT_MODEL)}


@pytest.mark.timeout(240)
def test_the_default_model_is_exchanged_and_back_while_users_ask(
    triton: LocalTriton, tmp_path: Path
) -> None:
    """In both workers, without a restart and without a failure."""
    file = tmp_path / "default"

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "server", "default", *arguments],
            cwd=CHECKOUT, env=os.environ | {"MIXER_DEFAULT_MODEL_FILE": str(file)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    flags = (
        *("--triton-url", triton.grpc_url, "--default-model", DEFAULT_MODEL, "--workers", "2"),
        *("--default-model-file", str(file), "--shadow", "linear:100%"),
    )
    with running_gateway(tmp_path / "log", *flags) as gateway:
        ready = f"model {DEFAULT_MODEL} version"
        wait_for(lambda: gateway.log.read_text().count(ready) >= 2, what="both workers")
        users = Users(gateway.url)

        def lately() -> set[str]:
            return {model for _, model in users.answers[-60:]}

        with users.asking():
            wait_for(lambda: len(users.answers) > 60, what="answers")
            assert lately() == {DEFAULT_MODEL}
            done = command("linear")
            assert done.returncode == 0, done.stderr
            wait_for(lambda: gateway.log.read_text().count("default model is linear") == 2)
            wait_for(lambda: lately() == {"linear"}, what="answers of the other model")
            with client_of(gateway) as client:
                assert client.get("/models").json()["default"] == "linear"
                assert client.get("/readyz").json()["model"] == "linear"
            # One that is not served is not used, and the log says so.
            command("nobody")
            wait_for(lambda: "names 'nobody', which is not served" in gateway.log.read_text())
            command("linear")
            command(DEFAULT_MODEL)
            assert command("--back").stdout.split(": ", 1)[1] == (
                f"the default model is linear, before {DEFAULT_MODEL}\n"
            )
            command("--back")
            # A worker may have seen some of the names in between; the last stays.
            wait_for(lambda: lately() == {DEFAULT_MODEL}, what="answers of the first model")
        assert {status for status, _ in users.answers} == {200}
        with client_of(gateway) as client:
            # The labels of the two differ, so they cannot be compared, and all is told for both.
            pairs = client.get("/shadow").json()["comparisons"]
            assert {(each["model"], each["candidate"]) for each in pairs} == {
                (DEFAULT_MODEL, "linear"),
                ("linear", DEFAULT_MODEL),
            }
            assert {name for each in pairs for name in each["copies"]} == {"unfit"}


def test_what_the_command_refuses(tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {n: v for n, v in os.environ.items() if not n.startswith("MIXER_")}
        return subprocess.run(
            [sys.executable, "-m", "server", "default", *arguments],
            cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    file = ("--file", str(tmp_path / "default"))
    assert "--default-model" in command(*file).stdout
    for arguments, says in (
        (("m",), "--file FILE"),
        (("m", "--back", *file), "not both"),
        (("--back", *file), "no model from before"),
        ((" ", *file), "name of a model"),
        (("m", "--file", str(tmp_path / "none/default")), "cannot be written"),
    ):
        done = command(*arguments)
        assert done.returncode in {1, 2}
        assert says in done.stderr
    (tmp_path / "default").write_bytes(b"x" * 5000)
    assert "more than 4096 bytes" in command("m", *file).stderr
