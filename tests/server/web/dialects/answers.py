"""What the clients of other servers send here, and how near their answers have to be."""

import base64
from typing import Any

import numpy as np

from tests.photos import photo
from tests.stack import DEFAULT_MODEL

JPEG = photo(0)
B64 = base64.b64encode(JPEG).decode()
M = DEFAULT_MODEL
INSTANCES: list[Any] = [
    {"b64": B64}, {"image_bytes": {"b64": B64}}, B64, {"data": B64},
    {"content": B64, "mimeType": "image/jpeg"}, f"data:image/jpeg;base64,{B64}",
]  # fmt: skip


def by_index(right: list[dict[str, Any]]) -> list[float]:
    return [p["probability"] for p in sorted(right, key=lambda p: int(p["index"]))]


def near(values: Any, right: Any) -> None:
    assert np.abs(np.asarray(values, float) - np.asarray(right, float)).max() < 1e-6
