"""A gateway as a target: answers are checked in full, or by their status alone.

In: connections to a gateway, a model, images. Out: the outcome of each request. The bytes of each
request are made once.
"""

import json
from collections.abc import Sequence
from typing import Any

from loadtest.load import answers
from loadtest.load.http import FAILURES, Http, Response
from loadtest.load.sample_images import SampleImage
from loadtest.load.target import Answered, Target, TargetError

BINARY = "application/octet-stream"


class StatusTarget:
    """Ready-made requests in turn; an answer is right when its status is 200."""

    def __init__(self, http: Http, requests: Sequence[bytes], images: int = 1) -> None:
        self.images = images  # in each request
        self._http = http
        self._requests = requests

    async def ask(self, number: int) -> Answered:
        """One request."""
        place = number % len(self._requests)
        try:
            response = await self._http.exchange(self._requests[place])
        except FAILURES as error:
            return Answered(f"no answer: {type(error).__name__}", 0)
        problem = self._wrong(place, response)
        if problem:
            return Answered(problem, response.status)
        return Answered("", 200, response.header(b"server-timing"))

    def close(self) -> None:
        """Close the connections that wait for a request."""
        self._http.close()

    def _wrong(self, _place: int, response: Response) -> str:
        if response.status == 200:
            return ""
        return f"status {response.status}: {response.body[:200].decode('utf-8', 'replace')}"


class GatewayTarget(StatusTarget):
    """POST /classify of one model; an answer is right when it equals the recorded one."""

    def __init__(
        self, http: Http, requests: list[bytes], right: Sequence[answers.Recorded]
    ) -> None:
        super().__init__(http, requests)
        self._right = right

    @classmethod
    async def prepare(
        cls, http: Http, model: str, sample_images: Sequence[SampleImage], about: dict[str, Any]
    ) -> "GatewayTarget":
        """Record the right answers; `about` is what GET /models/MODEL says. Raises TargetError."""
        tolerance = answers.TOLERANCE.get(answers.precision_of(about["provenance"]), 1e-3)
        most = min(answers.RECORDED, about["classes"])
        right = []
        for image in sample_images:
            path = f"/classify?model={model}&top_k={most}"
            document = await http.json(http.request(path, image.data, BINARY))
            try:
                right.append(answers.record(document, tolerance))
            except ValueError as error:
                raise TargetError(f"model {model!r}, {image.name}: {error}") from error
        path = f"/classify?model={model}&top_k={right[0].top_k}"
        requests = [http.request(path, each.data, BINARY) for each in sample_images]
        return cls(http, requests, right)

    def _wrong(self, place: int, response: Response) -> str:
        problem = super()._wrong(place, response)
        if problem:
            return problem
        try:
            document = json.loads(response.body)
        except ValueError:
            return f"wrong answer: not JSON: {response.body[:100].decode('utf-8', 'replace')}"
        problem = answers.wrong(document, self._right[place])
        return f"wrong answer: {problem}" if problem else ""


class InTurn:
    """Several targets that get the requests in turn."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self.images = targets[0].images
        self._targets = targets

    async def ask(self, number: int) -> Answered:
        """One request, to the target whose turn it is."""
        return await self._targets[number % len(self._targets)].ask(number)


def status_target(url: str, image: bytes, query: str = "", deadline: float = 0.0) -> StatusTarget:
    """POST /classify of one image; `deadline` in seconds goes into X-Request-Timeout."""
    http = Http(url)
    headers = f"X-Request-Timeout: {deadline}\r\n" if deadline else ""
    return StatusTarget(http, [http.request(f"/classify{query}", image, "image/jpeg", headers)])
