"""server/web/clients.py: who a request is from."""

from typing import Any

import pytest

from server.web.clients import Clients, networks


def scope(peer: str | None, *forwarded: str, key: str | None = None) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return {
        "state": {"key": key} if key else {},
        "client": (peer, 5) if peer else None,
        "headers": headers,
    }


@pytest.mark.parametrize(
    ("trusted", "request_scope", "name"),
    [
        ("", scope("192.0.2.1"), "192.0.2.1"),
        ("", scope("192.0.2.1", key="alice"), "key alice"),
        ("", scope(None), "unknown"),  # of a Unix socket
        # Nobody is believed unless told.
        ("", scope("192.0.2.1", "198.51.100.7"), "192.0.2.1"),
        ("10.0.0.0/8", scope("192.0.2.1", "198.51.100.7"), "192.0.2.1"),
        ("10.0.0.0/8", scope("10.1.2.3", "198.51.100.7"), "198.51.100.7"),
        # What stands before the nearest untrusted one was written by anybody.
        ("10.0.0.0/8", scope("10.1.2.3", "1.1.1.1, 198.51.100.7"), "198.51.100.7"),
        ("10.0.0.0/8", scope("10.1.2.3", "1.1.1.1", "198.51.100.7, 10.9.9.9"), "198.51.100.7"),
        ("10.0.0.0/8", scope("10.1.2.3", "10.4.4.4"), "10.1.2.3"),
        ("10.0.0.0/8", scope("10.1.2.3", " , "), "10.1.2.3"),
        ("10.0.0.0/8", scope("10.1.2.3"), "10.1.2.3"),
        # Some proxies write the port as well, which is another one for each connection.
        ("10.0.0.0/8", scope("10.1.2.3", "198.51.100.7:50123"), "198.51.100.7"),
        ("10.0.0.0/8", scope("10.1.2.3", "[2001:db8:1:2::9]:50123"), "2001:db8:1:2::/64"),
        ("10.0.0.0/8", scope("10.1.2.3", "1.1.1.1, 10.9.9.9:443"), "1.1.1.1"),
        ("10.0.0.0/8", scope("10.1.2.3", "x" * 1000), "x" * 64),
        # One customer has a network of 64 bits.
        ("", scope("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64"),
        ("::1", scope("::1", "2001:db8:1:2::9"), "2001:db8:1:2::/64"),
        # IPv4 within IPv6, as a socket for both has it.
        ("", scope("::ffff:192.0.2.1"), "192.0.2.1"),
        ("10.0.0.0/8", scope("::ffff:10.1.2.3", "198.51.100.7"), "198.51.100.7"),
    ],
)
def test_the_client_of_a_request(trusted: str, request_scope: dict[str, Any], name: str) -> None:
    assert Clients(trusted).name(request_scope) == name


def test_what_is_no_address_is_refused_at_start() -> None:
    assert len(networks("10.0.0.0/8, ::1,")) == 2
    with pytest.raises(ValueError, match="proxy"):
        Clients("proxy.example")
