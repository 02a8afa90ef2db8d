"""A server between a client and the gateway that loses or spoils some answers, for tests."""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from tests.http_server import Handler, serving

# From the number of a POST and the right answer to what is sent; None closes the connection.
Fault = Callable[[int, bytes], bytes | None]


@contextlib.contextmanager
def faulty_proxy(url: str, fault: Fault) -> Iterator[str]:
    """Forwards to `url`; the address of the proxy."""
    upstream = urlsplit(url).netloc
    counted = threading.Lock()
    posts = 0

    class Forwarder(Handler):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
            self._forward(None)

        def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
            nonlocal posts
            with counted:
                posts += 1
                number = posts
            self._forward(number)

        def _forward(self, number: int | None) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            connection = http.client.HTTPConnection(upstream, timeout=60)
            kind = {"Content-Type": self.headers.get("Content-Type", "")} if body else {}
            connection.request(self.command, self.path, body or None, kind)
            response = connection.getresponse()
            answer: bytes | None = response.read()
            connection.close()
            if number is not None and answer is not None:
                answer = fault(number, answer)
            if answer is None:
                self.close_connection = True
                return
            timing = response.headers.get("Server-Timing", "")
            self.answer(response.status, answer, {"Server-Timing": timing})

    with serving(Forwarder) as address:
        yield address


def drop_one_in(many: int) -> Fault:
    """Every so many answers, none comes."""
    return lambda number, answer: None if number % many == 0 else answer


def lie_one_in(many: int) -> Fault:
    """Every so many answers, the first label is another."""

    def spoil(number: int, answer: bytes) -> bytes:
        if number % many:
            return answer
        return answer.replace(b'"label":"', b'"label":"not ', 1)

    return spoil


def stall_one_in(many: int, seconds: float) -> Fault:
    """Every so many answers, it comes so much later."""

    def stall(number: int, answer: bytes) -> bytes:
        if number % many == 0:
            time.sleep(seconds)
        return answer

    return stall
