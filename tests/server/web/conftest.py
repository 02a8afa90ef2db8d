"""Fixtures of the tests of server/web/."""

from collections.abc import Iterator

import httpx
import pytest

from tests.stack import Gateway


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, trust_env=False, timeout=30) as client:
        yield client
