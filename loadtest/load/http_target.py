"""The gateway as a target, spoken to with as little CPU time as Python allows.

In: the gateway's address, a model, images. Out: checked answers. The bytes of each request are
made once; connections are kept, one request at a time on each, and none is ever repeated.
"""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from loadtest.load import answers, forms
from loadtest.load.sample_images import SampleImage
from loadtest.load.target import PATIENCE, Answered, BusyError, TargetError

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# Servers close connections that have long been idle, at any moment; then ours are used no more.
IDLE_SECONDS = 2.0
FAILURES = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)


class Http:
    """Keep-alive connections to one server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise TargetError(f"{url}: expected an address such as http://127.0.0.1:8000")
        self._host, self._port = parts.hostname, parts.port or 80
        self._netloc = parts.netloc
        # The variable that the gateway's own client reads.
        self._key = os.environ.get("MIXER_CLIENT_KEY", "")
        self._idle: list[tuple[float, Connection]] = []  # since when

    def request(self, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        """The bytes of a GET, or of a POST of `body`."""
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {self._netloc}\r\n"
        if self._key:
            head += f"X-API-Key: {self._key}\r\n"
        if body is not None:
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        return f"{head}\r\n".encode() + (body or b"")

    async def exchange(self, request: bytes) -> tuple[int, str, bytes]:
        """Status, the value of Server-Timing, body; raises one of FAILURES."""
        if self._idle and self._idle[-1][0] < time.monotonic() - IDLE_SECONDS:
            self.close()
        reader, writer = (
            self._idle.pop()[1]
            if self._idle
            else await asyncio.open_connection(self._host, self._port)
        )
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            body = await reader.readexactly(int(fields.get("content-length", "0")))
        except BaseException:
            writer.close()
            raise
        if fields.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append((time.monotonic(), (reader, writer)))
        return int(head[0].split(" ", 2)[1]), fields.get("server-timing", ""), body

    async def json(self, request: bytes) -> Any:  # noqa: ANN401 - JSON
        """The document that answers; raises TargetError."""
        line = request.partition(b"\r\n")[0].decode()
        try:
            async with asyncio.timeout(PATIENCE):
                status, _, body = await self.exchange(request)
            document = json.loads(body)
        except FAILURES as error:
            where = f"http://{self._netloc}"
            raise TargetError(f"{where}: {line}: {error or type(error).__name__}") from error
        if status != 200:
            kind = BusyError if status == 429 else TargetError
            raise kind(f"{line}: status {status}: {body[:300].decode('utf-8', 'replace')}")
        return document

    def close(self) -> None:
        """Close what is idle."""
        for _, (_, writer) in self._idle:
            writer.close()
        self._idle.clear()


class GatewayTarget:
    """POST /classify of one model."""

    images = 1

    def __init__(self, http: Http, requests: list[bytes], right: list[answers.Recorded]) -> None:
        self._http = http
        self._requests = requests
        self._right = right

    @classmethod
    async def prepare(
        cls, http: Http, model: str, sample_images: Sequence[SampleImage], about: dict[str, Any]
    ) -> "GatewayTarget":
        """Record the right answers; `about` is what GET /models/MODEL says. Raises TargetError."""
        tolerance = answers.TOLERANCE.get(about["provenance"].get("precision", "fp32"), 1e-3)
        most = min(answers.RECORDED, about["classes"])
        right = []
        for image in sample_images:
            path = f"/classify?model={model}&top_k={most}"
            document = await http.json(http.request(path, image.data, "application/octet-stream"))
            try:
                right.append(answers.record(document, tolerance))
            except ValueError as error:
                raise TargetError(f"model {model!r}, {image.name}: {error}") from error
        path = f"/classify?model={model}&top_k={right[0].top_k}"
        requests = [
            http.request(path, each.data, "application/octet-stream") for each in sample_images
        ]
        return cls(http, requests, right)

    async def ask(self, number: int) -> Answered:
        """One image."""
        place = number % len(self._requests)
        try:
            async with asyncio.timeout(PATIENCE):
                status, timing, body = await self._http.exchange(self._requests[place])
            if status != 200:
                return Answered(f"status {status}: {body[:200].decode('utf-8', 'replace')}")
            problem = answers.wrong(json.loads(body), self._right[place])
        except FAILURES as error:
            return Answered(f"no answer: {type(error).__name__}")
        if problem:
            return Answered(f"wrong answer: {problem}")
        return Answered("", forms.phases(timing))
