"""Which client a request is from, so that each client gets its share.

In: the ASGI scope. Out: the client's name: that of its API key, else its address. The address is
the connection's, unless that is a trusted proxy's: then it is the last address in `X-Forwarded-For`
that is no trusted proxy's. For IPv6 the network of 64 bits counts, since one customer has all of it
(RFC 6177).
"""

import functools
import ipaddress
import re

from starlette.types import Scope

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
UNKNOWN = "unknown"
# 192.0.2.1:443 and [2001:db8::1]:443; IPv6 alone has more colons, and no brackets.
WITH_PORT = re.compile(r"([^:\[\]]+):\d+|\[([^\]]*)\](?::\d+)?")


class Clients:
    """Tells clients apart; `trusted` are addresses and networks with commas between them."""

    def __init__(self, trusted: str) -> None:
        """Raises `ValueError` for anything else."""
        self._trusted = networks(trusted)

    def name(self, scope: Scope) -> str:
        """The client of a request; the name of its API key has been put into its state."""
        key = scope["state"].get("key")
        if key is not None:
            return f"key {key}"
        peer = scope.get("client")
        address: str = peer[0] if peer else UNKNOWN
        if self._trusted and _within(address, self._trusted):
            address = self._forwarded(scope, address)
        return _network(address)

    def _forwarded(self, scope: Scope, peer: str) -> str:
        """The nearest address that is not a trusted proxy's; the peer's if there is none."""
        values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        for each in reversed(b",".join(values).decode("latin-1").split(",")):
            address = _without_port(each.strip())
            if address and not _within(address, self._trusted):
                return address[:64]
        return peer


def networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks, as 10.0.0.0/8,::1. Raises `ValueError` for anything else."""
    return tuple(ipaddress.ip_network(each.strip()) for each in text.split(",") if each.strip())


def _without_port(text: str) -> str:
    """Remove the port that some proxies add: else each connection would be another client."""
    found = WITH_PORT.fullmatch(text)
    return found[1] or found[2] if found else text


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The parsed address; an IPv4 address within IPv6 becomes IPv4. Raises `ValueError`."""
    found = ipaddress.ip_address(text)
    return getattr(found, "ipv4_mapped", None) or found


@functools.lru_cache(maxsize=4096)
def _within(address: str, trusted: tuple[Network, ...]) -> bool:
    try:
        found = _address(address)
    except ValueError:
        return False
    return any(found in network for network in trusted)


@functools.lru_cache(maxsize=4096)
def _network(address: str) -> str:
    """An IPv4 address as it is, or the first 64 bits of an IPv6 address."""
    try:
        found = _address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
