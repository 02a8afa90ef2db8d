"""Fixtures of the tests of server/web/."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.photos import photo
from tests.stack import Gateway, client_of


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with client_of(gateway) as client:
        yield client


@pytest.fixture(scope="module")
def right(client: httpx.Client) -> list[dict[str, Any]]:
    """What /classify says of `photo(0)`, of all classes, best first."""
    predictions = client.post("/classify?top_k=10", content=photo(0)).json()["predictions"]
    assert len(predictions) == 10
    return list(predictions)
