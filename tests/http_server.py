"""A small HTTP server in a thread of the test's process.

In: a handler of requests. Out: the server's URL, as long as the context lasts.
"""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Keeps connections open, and logs nothing; a test adds `do_GET` or `do_POST`."""

    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a whole response."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # By itself five: while this process does something else, the sixth client that connects is not
    # heard, and tries again after a second, then after three.
    request_queue_size = 128


@contextlib.contextmanager
def serving(handler: type[Handler]) -> Iterator[str]:
    """The URL of a server that answers with this handler, on a free port of loopback."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
