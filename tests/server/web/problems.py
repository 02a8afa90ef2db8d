"""An image to send, and what every problem document has."""

import httpx

from tests.photos import photo

JPEG = photo(0)
RAW = {"Content-Type": "image/jpeg"}


def check_problem(response: httpx.Response, status: int, kind: str, detail: str = "") -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:mixer-serving:problem:{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert detail in problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "server-timing" in response.headers
