"""A model's process that stood still never gives one client's answer to another."""

import functools
import os
import re
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from server.local_triton.backends import standstill
from server.local_triton.stubs import children
from server.local_triton.supervisor import LocalTriton
from tests.stack import DEFAULT_MODEL, running_triton
from tests.waiting import CHECKOUT, frozen, wait_for

Answer = npt.NDArray[np.float32]
IMAGES = 24
GIVEN_UP_S = 1.15  # Triton waits 1 s for a sign of life


def ask(client: triton_grpc.InferenceServerClient, number: int) -> Answer | None:
    """The probabilities [K] of one of `IMAGES` different images; None if there is no answer."""
    pixels = np.random.default_rng(number).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    image = triton_grpc.InferInput("image", pixels.shape, "UINT8")
    image.set_data_from_numpy(pixels)
    try:
        found = client.infer(DEFAULT_MODEL, [image]).as_numpy("probabilities")
    except InferenceServerException:
        return None
    # Where the model's process ends while it computes, Triton may answer without an output.
    return None if found is None else found[0]


class Client(threading.Thread):
    """Asks for one image after another, and notes each answer that is not the image's own."""

    def __init__(self, url: str, first: int, right: list[Answer]) -> None:
        super().__init__()
        self._url, self._number, self._right = url, first, right
        self.enough = threading.Event()
        self.answers = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        with triton_grpc.InferenceServerClient(self._url) as client:
            while not self.enough.wait(0.002):
                self._number = (self._number + 5) % IMAGES
                found = ask(client, self._number)
                if found is None:
                    self.enough.wait(0.05)
                    continue
                self.answers += 1
                distances = [float(np.abs(found - each).max()) for each in self._right]
                if distances[self._number] > 1e-4:
                    owner = int(np.argmin(distances))
                    self.wrong.append(f"image {self._number} got the answer of image {owner}")


def wait_for_answers(clients: list[Client]) -> None:
    before = sum(each.answers for each in clients)
    wait_for(lambda: sum(each.answers for each in clients) > before + 40, what="answers")


def freeze(triton: LocalTriton, seconds: float) -> int:
    """Stop the model's process while calls are under way; returns tritonserver's id before."""
    assert triton.pid is not None
    pid = triton.pid
    (stub,) = children(pid)
    with frozen(stub):
        time.sleep(seconds)
    return pid


def is_another(triton: LocalTriton, pid: int) -> bool:
    return triton.pid not in (None, pid)


def test_no_client_gets_the_answer_of_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(CHECKOUT / "model_repository" / DEFAULT_MODEL, tmp_path / DEFAULT_MODEL)
    with running_triton(tmp_path) as triton:
        with triton_grpc.InferenceServerClient(triton.grpc_url) as client:
            asked = [ask(client, number) for number in range(IMAGES)]
        right = [answer for answer in asked if answer is not None]
        assert len(right) == IMAGES
        clients = [Client(triton.grpc_url, number, right) for number in range(4)]
        for each in clients:
            each.start()
        try:
            for _ in range(2):
                wait_for_answers(clients)
                pid = freeze(triton, GIVEN_UP_S)
                wait_for(functools.partial(is_another, triton, pid), what="another tritonserver")
            wait_for_answers(clients)
        finally:
            for each in clients:
                each.enough.set()
            for each in clients:
                each.join()
    assert not [wrong for each in clients for wrong in each.wrong]
    # No fault of Triton's: nothing is counted towards giving it up, and no start waits longer.
    assert "starting it again in 0.1 s" in caplog.text
    assert "starting it again in 0.2 s" not in caplog.text
    assert re.search(r"stood still for 1\.\d s with a call under way and ends", caplog.text)


@pytest.mark.parametrize(
    ("before", "pause", "within", "ends"),
    [
        (0.01, 0.5, True, False),  # the process has shown a sign of life in time
        (0.01, 0.8, True, False),  # Triton has not waited for 1 s
        (0.01, 1.1, True, True),
        (0.5, 0.7, True, True),  # the last sign of life may have come before Triton's wait began
        (5.0, 0.3, True, False),  # a long call alone is no reason
        (0.01, -3600.0, True, False),  # the clock was set back
        (0.01, 1.1, False, True),  # the call came while the process stood still
        (0.2, 1.1, False, False),  # the call came later
    ],
)
def test_only_a_call_that_may_have_been_given_up_ends_the_process(
    before: float, pause: float, within: bool, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`before` are the seconds of the call before the pause, or from the pause to the call."""
    now = 1000.0
    ended: list[int] = []
    # The thread is no part of this; its ticks come in `pass_time`.
    monkeypatch.setattr(threading.Thread, "start", lambda _thread: None)
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(os, "_exit", ended.append)
    watch = standstill.Standstill()

    def pass_time(seconds: float) -> None:
        nonlocal now
        for _ in range(int(seconds / standstill.TICK_S)):
            now += standstill.TICK_S
            watch._check()
        now += seconds % standstill.TICK_S

    if within:
        with watch.call():
            pass_time(before)
            now += pause
    else:
        now += pause
        pass_time(before)
        with watch.call():
            pass
    assert bool(ended) == ends
