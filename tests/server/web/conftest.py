"""Fixtures of the tests of server/web/."""

from collections.abc import Iterator

import httpx
import pytest

from tests.stack import Gateway, client_of


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with client_of(gateway) as client:
        yield client
