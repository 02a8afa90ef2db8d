"""server/web/json_bodies.py: an image for /classify in JSON."""

from typing import Any

import httpx

from tests.server.web.dialects.answers import B64, near


def test_classify_takes_json(client: httpx.Client, right: list[dict[str, Any]]) -> None:
    for image in (B64, f"data:image/jpeg;base64,{B64}"):
        answer = client.post("/classify?top_k=2", json={"image": image}).json()
        near([p["probability"] for p in answer["predictions"]], [
            p["probability"] for p in right[:2]
        ])  # fmt: skip
    bodies: list[Any] = [{}, {"image": 5}, {"image": "?"}, {"image": B64, "x": 1}, [], "x"]
    for bad in bodies:
        response = client.post("/classify", json=bad)
        assert response.status_code == 400, response.text
        assert response.json()["type"].endswith(":bad-body")
