"""server/serving/admission.py: queues on a clock of the test's own."""

import heapq
from collections import deque

import pytest

from server.problems import ModelNotReady, TooBusy
from server.serving.admission import MARGIN, UNMEASURED, Admission, Ticket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def enter(admission: Admission, images: int, seconds: float, client: str = "") -> Ticket:
    """A ticket of images that are pixels already, and wait for nothing but the model."""
    ticket = admission.enter(images, seconds, client)
    for _ in range(images):
        ticket.begin()
    return ticket


def served(admission: Admission, clock: Clock, images: int, seconds_each: float) -> None:
    """Let `images` be answered one after another."""
    for _ in range(images):
        with enter(admission, 1, 1000) as ticket:
            clock.now += seconds_each
            ticket.done()


def test_a_lone_request_is_always_admitted() -> None:
    clock = Clock()
    admission = Admission("m", clock)
    served(admission, clock, 10, 5.0)
    with enter(admission, 64, 0.001):
        assert admission.waiting == 64
    assert admission.waiting == 0


def test_what_cannot_be_in_time_is_refused_with_the_seconds_to_wait() -> None:
    clock = Clock()
    admission = Admission("m", clock)
    served(admission, clock, 100, 0.1)  # 10 per second
    tickets = [enter(admission, 1, 5.0) for _ in range(int(10 * 5 * MARGIN))]
    with pytest.raises(TooBusy, match="answers 10 per second") as refusal:
        enter(admission, 1, 5.0)
    assert refusal.value.retry_after == 1
    # 25 wait: an image that may only take 1 s fits in when 4 are left, after 2.1 s.
    with pytest.raises(TooBusy) as refusal:
        enter(admission, 1, 1.0)
    assert refusal.value.retry_after == 3
    assert (b"retry-after", b"3") in refusal.value.headers()
    tickets.append(enter(admission, 1, 6.0))
    for ticket in tickets:
        ticket.done()
    assert admission.waiting == 0


def test_the_rate_follows_what_is_measured() -> None:
    clock = Clock()
    admission = Admission("m", clock)
    served(admission, clock, 1000, 0.01)
    clock.now += 3600  # an idle hour is not counted
    served(admission, clock, 1, 0.01)
    enter(admission, 79, 1.0)
    with pytest.raises(TooBusy, match="answers 100 per second"):
        enter(admission, 1, 1.0)
    admission = Admission("m", clock)
    served(admission, clock, 1000, 0.01)
    served(admission, clock, 50, 0.1)
    enter(admission, 8, 1.0)
    with pytest.raises(TooBusy, match=r"answers 1[0-9](\.[0-9]+)? per second"):
        enter(admission, 10, 1.0)


def test_before_the_first_answer_only_so_many_are_admitted() -> None:
    admission = Admission("m", Clock())
    ticket = enter(admission, UNMEASURED, 1.0)
    with pytest.raises(TooBusy):
        enter(admission, 1, 1.0)
    ticket.done()


def test_a_queue_that_does_not_move_is_no_overload() -> None:
    clock = Clock()
    admission = Admission("m", clock)
    served(admission, clock, 100, 0.01)
    enter(admission, 100, 2.0)
    clock.now += 30
    with pytest.raises(ModelNotReady, match=r"not answered anything for 30\.0 s"):
        enter(admission, 100, 1.0)


@pytest.mark.parametrize("batch", [1, 8])
def test_at_three_times_the_capacity_the_server_stays_busy_and_all_are_in_time(batch: int) -> None:
    clock = Clock()
    admission = Admission("m", clock)
    deadline, service, arrivals, total = 1.0, 0.01, 0.01 / 3, 6000
    waiting: deque[float] = deque()
    tickets: deque[Ticket] = deque()
    events = [(number * arrivals, "arrival") for number in range(total)]
    heapq.heapify(events)
    latencies: list[float] = []
    refused = in_service = 0
    while events:
        clock.now, what = heapq.heappop(events)
        if what == "done":
            for _ in range(in_service):
                tickets.popleft().done()
                latencies.append(clock.now - waiting.popleft())
            in_service = 0
        else:
            try:
                tickets.append(enter(admission, 1, deadline))
                waiting.append(clock.now)
            except TooBusy:
                refused += 1
        if waiting and not in_service:
            in_service = min(batch, len(waiting))
            heapq.heappush(events, (clock.now + service * in_service, "done"))
    assert len(latencies) + refused == total
    # 20 s of arrivals and what waits at their end, at 100 per second.
    assert len(latencies) >= 0.95 * 2000
    assert max(latencies) <= deadline
    assert admission.waiting == 0


def test_the_rate_counts_inferences_only() -> None:
    clock = Clock()
    admission = Admission("m", clock)
    served(admission, clock, 40, 0.05)
    assert admission.load.rate == pytest.approx(20)
    # Images that are refused after a while, as many as are answered, change nothing.
    for _ in range(40):
        refused = admission.enter(1, 1000)
        with enter(admission, 1, 1000) as ticket:
            clock.now += 0.05
            ticket.done()
        with refused:
            clock.now += 0.2  # decoding takes longer than the model, which has nothing to do
            refused.refused()
    assert admission.load.rate == pytest.approx(20)
    assert admission.waiting == 0


def test_one_client_leaves_room_for_another() -> None:
    clock = Clock()
    admission = Admission("m", clock)
    served(admission, clock, 100, 0.1)  # 10 per second
    greedy = [enter(admission, 1, 4.0, "greedy") for _ in range(20)]
    with pytest.raises(TooBusy):
        enter(admission, 1, 4.0, "greedy")
    # Another is admitted up to its share: the tenth of its images is the twentieth in fair order.
    modest = [enter(admission, 1, 4.0, "modest") for _ in range(10)]
    with pytest.raises(TooBusy):
        enter(admission, 1, 4.0, "modest")
    # Now the first has a half only.
    for ticket in greedy[:10]:
        clock.now += 0.1
        ticket.done()
    with pytest.raises(TooBusy):
        enter(admission, 1, 4.0, "greedy")
    for ticket in (*greedy[10:], *modest):
        ticket.done()
    assert admission.waiting == 0


def test_a_ticket_gives_back_what_was_not_done() -> None:
    admission = Admission("m", Clock())
    with admission.enter(5, 1.0, "a") as ticket:
        ticket.begin()
        ticket.begin()
        ticket.done()
        ticket.refused()
        assert admission.waiting == 3
    assert admission.waiting == 0
    assert admission.load.ahead("a", 1) == 1
    assert admission.load.idle == 0
