"""Of several workers each is ready for itself, and says so on the connections that it has."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from server.local_triton.supervisor import LocalTriton
from tests.photos import photo
from tests.stack import Gateway, client_of, running_gateway, status
from tests.waiting import wait_for


class Narrow:
    """A way to Triton that lets one connection through, and all once it is `wide`."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.wide = False
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._sockets and not self.wide:
                    client.close()
                    continue
                triton = socket.create_connection(self._target)
                self._sockets += [client, triton]
                for pair in ((client, triton), (triton, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextlib.contextmanager
def narrow(target: str) -> Iterator[Narrow]:
    way = Narrow(target)
    try:
        yield way
    finally:
        way.close()


def answers(gateway: Gateway) -> tuple[int, int]:
    """The statuses of /readyz and of an image, on one connection and so of one worker."""
    with client_of(gateway, 60.0) as client:
        ready = client.get("/readyz")
        image = client.post(
            "/classify", content=photo(0, 60, 60), headers={"Content-Type": "image/jpeg"}
        )
        for each in (ready, image):
            assert each.status_code == 200 or each.headers["retry-after"] == "1"
        return ready.status_code, image.status_code


def test_a_worker_that_is_not_ready_says_so_and_answers_503(
    triton: LocalTriton, tmp_path: Path
) -> None:
    with (
        narrow(triton.grpc_url) as way,
        running_gateway(
            tmp_path / "log", "--triton-url", way.url, "--workers", "2", ready=False
        ) as gateway,
    ):
        wait_for(lambda: status(f"{gateway.url}/readyz") == 200, what="one ready worker")
        seen: set[tuple[int, int]] = set()

        def both_seen() -> bool:
            seen.add(answers(gateway))
            return seen >= {(200, 200), (503, 503)}

        wait_for(both_seen, what="answers of both workers")
        way.wide = True
        wait_for(
            lambda: {answers(gateway) for _ in range(8)} == {(200, 200)}, what="two ready workers"
        )
