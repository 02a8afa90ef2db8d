"""A network between a gateway and its Triton, with faults at will.

In: the address of a Triton. Out: another address of it on loopback.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Relay:
    """A network between gateway and Triton that can swallow everything.

    Connections that it swallowed once stay dead afterwards, as those of a real network do for
    minutes: TCP doubles the time between its attempts.
    """

    def __init__(self, target: str, *, narrow: bool = False) -> None:
        """While it is `narrow`, it lets one connection through."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._dead: set[socket.socket] = set()
        self.swallows = False
        self.narrow = narrow
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._sockets and self.narrow:
                    client.close()
                    continue
                triton = socket.create_connection(self._target)
                self._sockets += [client, triton]
                for pair in ((client, triton), (triton, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.swallows:
                    self._dead |= {source, sink}
                if source not in self._dead:
                    sink.sendall(data)
        if source not in self._dead:
            sink.close()

    @contextlib.contextmanager
    def swallowing(self) -> Iterator[None]:
        self._dead |= set(self._sockets)
        self.swallows = True
        try:
            yield
        finally:
            self.swallows = False

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
