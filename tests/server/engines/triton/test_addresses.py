"""server/engines/triton/addresses.py: IPv4 before IPv6, on ports of their own."""

import asyncio
import socket

from server.engines.triton.addresses import Addresses, of_one_family

FOUR, SIX = socket.AF_INET, socket.AF_INET6


def test_a_name_with_both_kinds_counts_each_triton_once() -> None:
    assert of_one_family([(SIX, "::1"), (FOUR, "10.0.0.1")], "8001") == ["10.0.0.1:8001"]
    assert of_one_family([(SIX, "::1"), (SIX, "::2")], "8001") == ["[::1]:8001", "[::2]:8001"]
    assert of_one_family([], "8001") == []


def test_addresses_need_no_resolver_and_count_once() -> None:
    addresses = Addresses("127.0.0.1:8001,[::1]:8002,127.0.0.1:8001")
    assert asyncio.run(addresses.resolve()) == ["127.0.0.1:8001", "[::1]:8002"]
    assert addresses.failure is None


def test_a_name_that_cannot_be_resolved_is_reported() -> None:
    addresses = Addresses("nobody.invalid:8001,127.0.0.1:1")  # RFC 6761: never resolves
    assert asyncio.run(addresses.resolve()) == ["127.0.0.1:1"]
    assert addresses.failure is not None
    assert "'nobody.invalid' cannot be resolved" in addresses.failure
