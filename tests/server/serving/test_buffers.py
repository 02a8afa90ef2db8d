"""server/serving/buffers.py: the limits, and room for another client."""

import contextlib

import pytest

from server.problems import BodyTooLarge, TooBusy
from server.serving.buffers import Buffers


def is_empty(buffers: Buffers) -> bool:
    return buffers.held == 0 and not buffers.by_client


def test_a_lone_request_may_fill_everything() -> None:
    buffers = Buffers(100, 100, 1.0)
    with buffers.hold("a") as hold:
        hold.take(100)
    assert is_empty(buffers)


def test_one_body_has_its_limit() -> None:
    buffers = Buffers(100, 1000, 1.0)
    with buffers.hold("a") as hold, pytest.raises(BodyTooLarge, match="more than the 100 bytes"):
        hold.take(101)
    assert buffers.held == 0


def test_one_client_leaves_as_much_as_it_holds() -> None:
    buffers = Buffers(100, 1000, 1.0)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(buffers.hold("greedy")).take(100)
        with buffers.hold("greedy") as hold, pytest.raises(TooBusy, match="this client"):
            hold.take(100)
        with buffers.hold("modest") as hold:
            hold.take(100)
    assert is_empty(buffers)


def test_what_is_kept_counts_until_it_is_released() -> None:
    buffers = Buffers(100, 1000, 1.0)
    with buffers.hold("a") as hold:
        hold.take(10)
        hold.keep()
    assert buffers.held == 10
    hold.release()
    assert buffers.held == 0
