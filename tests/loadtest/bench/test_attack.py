"""`bench attack`: what its clients count; a fault of theirs is not taken for a kept promise."""

import os
import time
from collections.abc import Iterator

import pytest

from loadtest.bench import attack, start
from loadtest.load import loop
from loadtest.servers.launch import Server, StackError
from tests.http_server import Handler, serving


class Gateway(Handler):
    """Answers with the status that the body states; to "hang" only after 0.4 s."""

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"hang":
            time.sleep(0.4)
        self.answer(int(body) if body.isdigit() else 200, b"said")


@pytest.fixture
def server() -> Iterator[Server]:
    """One whose process is that of the test."""
    with serving(Gateway) as url:

        class Running(Server):
            pid = os.getpid()

        yield Running((), int(url.rpartition(":")[2]), "/")


def run(server: Server, file: bytes) -> attack.Attack:
    found = attack.Attack(server, [""], "", attack.USER)
    samples = loop.run(found.measure(b"200", [file], seconds=0.6, rate=20, pause=0.1, deadline=1))
    assert samples
    return found


def test_answers_and_memory_are_seen(server: Server) -> None:
    found = run(server, b"415")
    assert set(found.statuses) <= {"415", "hung up"}
    assert found.statuses["415"] > 3
    assert found.peak > 2**20


def test_who_hung_up_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.load.http.PATIENCE", 0.2)
    assert set(run(server, b"hang").statuses) == {"hung up", "no answer"}


@pytest.mark.parametrize("broken", ["tree", "Http"])
def test_a_fault_ends_the_program(
    server: Server, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Else an attack that never was, or memory that nobody saw, would keep every promise."""
    found = attack.Attack(server, [""], "", attack.USER)

    def fail(*_: object) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(attack, broken, fail)
    with pytest.raises(ExceptionGroup) as caught:
        loop.run(found.measure(b"200", [b"200"], seconds=0.6, rate=20, pause=0.1, deadline=1))
    assert caught.group_contains(KeyError)


def test_an_image_that_no_server_takes_is_not_waited_for(server: Server) -> None:
    """`bench start` sends it until it is answered."""
    assert start.answered(server.port, b"200")
    assert not start.answered(server.port, b"503")
    with pytest.raises(StackError, match="said"):
        start.answered(server.port, b"415")
