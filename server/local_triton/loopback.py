"""One HTTP exchange with Triton on this machine.

In: a port of 127.0.0.1 and a request. Out: the answer, or an OSError or ExchangeError. No proxy of
the environment (`http_proxy`, …) is used, and nothing is kept from one exchange to the next.
"""

import asyncio
import contextlib
import http.client
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

from server.local_triton.command_line import LOOPBACK


class ExchangeError(Exception):
    """There was an answer, but not the expected one; the message says what it was."""


@dataclass(frozen=True)
class Answer:
    """What Triton answered."""

    status: int
    headers: Message
    body: bytes

    def good(self) -> bytes:
        """The body of a 200. Raises ExchangeError."""
        if self.status != 200:
            text = self.body.decode(errors="replace")
            with contextlib.suppress(ValueError, LookupError, TypeError):
                text = str(json.loads(text)["error"])
            raise ExchangeError(f"{self.status}: {text[:500]}")
        return self.body

    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The value in the body of a 200. Raises ExchangeError."""
        try:
            return json.loads(self.good())
        except ValueError as error:
            raise ExchangeError(f"the answer is no JSON: {error}") from error


async def exchange(
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request, read its answer. Raises OSError or ExchangeError."""
    lines = {"Host": LOOPBACK, "Content-Length": str(len(body)), "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in (lines | dict(headers or {})).items())
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
        status = await reader.readline()
        fields = await reader.readuntil(b"\r\n\r\n")
        received = http.client.parse_headers(io.BytesIO(fields))
        content = await reader.readexactly(int(received.get("Content-Length", "0")))
        return Answer(int(status.split(maxsplit=2)[1]), received, content)
    except (EOFError, asyncio.LimitOverrunError, LookupError, ValueError) as error:
        raise ExchangeError(f"Triton's HTTP answer is not whole: {error!r}") from error
    finally:
        writer.close()
