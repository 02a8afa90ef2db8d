"""The sockets that clients connect to: the main one, and those of /metrics and /docs.

In: `Settings`. Out: listening sockets, which several worker processes can share, or `ListenError`
that says which address cannot be used.
"""

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

from server.settings import Settings

BACKLOG = 2048
MAIN = "--host and --port"  # the flags of the main address


class ListenError(RuntimeError):
    """An address cannot be listened on; the message says which, why, and what to set."""


@dataclass
class Listeners:
    """The `main` socket and, by the name of the setting that asks for an address, the others."""

    main: socket.socket
    others: dict[str, socket.socket] = field(default_factory=dict)

    def all(self) -> list[socket.socket]:
        """Each socket once."""
        return list({id(each): each for each in (self.main, *self.others.values())}.values())

    def ports(self) -> dict[str, int]:
        """The ports of the others, by the same names."""
        return {name: port_of(each) for name, each in self.others.items()}

    def close(self) -> None:
        """Take no more connections."""
        for each in self.all():
            each.close()


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[Listeners]:
    """All sockets that the settings ask for. Raises `ListenError`."""
    made = Listeners(_listen(settings.host, settings.port, MAIN))
    try:
        addresses: dict[str, socket.socket] = {}
        for name in ("metrics", "docs"):
            place: str = getattr(settings, name)
            host, colon, port = place.rpartition(":")
            if colon:
                if place not in addresses:
                    addresses[place] = _listen(host.strip("[]"), int(port), f"--{name}")
                made.others[name] = addresses[place]
        yield made
    finally:
        made.close()


def port_of(listener: socket.socket) -> int:
    """The port that a socket listens on."""
    port: int = listener.getsockname()[1]
    return port


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """The socket's address for a browser."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _listen(host: str, port: int, flags: str) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        variable = f", as MIXER_PORT={port + 1} make serve" if flags == MAIN else ""
        free = variable if error.errno == errno.EADDRINUSE and port < 65535 else ""
        raise ListenError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            f"choose others with {flags}{free}"
        ) from error
