"""The state of a supervised Triton over HTTP, for Kubernetes, Docker and Prometheus.

In: a `Supervisor`. Out: `/livez` (the supervisor works: only the supervisor restarts Triton, so no
other health check needs to kill anything), `/readyz` (Triton answers as it should) and `/metrics`.
Triton becomes ready when every model answers the probe, so that a roll-out stops at a model that
fails; it stays ready as long as any model answers, so that one bad model does not make the others
unavailable. Imports only the standard library.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterable
from typing import Literal

from server.host.processes import usage
from server.local_triton.restarts import Reason, Supervisor

LONGEST_REQUEST = 8192  # bytes; a probe's request has some hundred
REQUEST_S = 5.0
READY_WHEN = ("all", "any")


class Status:
    """Answers as long as `run` does."""

    def __init__(
        self,
        supervisor: Supervisor,
        ready_when: Literal["all", "any"] = "all",
        more_metrics: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """`ready_when` says which models must answer before it is ready for the first time."""
        self._supervisor = supervisor
        self._ready_when = ready_when
        self._more_metrics = more_metrics
        self._was_ready = False

    async def run(self, address: str, port: int) -> None:
        """Serve until cancelled. Raises OSError if it cannot listen."""
        server = await asyncio.start_server(self._answer, address, port, limit=LONGEST_REQUEST)
        async with server:
            await server.serve_forever()

    def ready(self) -> bool:
        """Whether requests may be sent to this Triton."""
        problems, models = self._supervisor.problems(), self._supervisor.models()
        strict = self._ready_when == "all" and not self._was_ready
        ready = bool(models) and "" not in problems and not (strict and problems)
        self._was_ready |= ready
        return ready

    def metrics(self) -> str:
        """In Prometheus' text format."""
        supervisor, problems = self._supervisor, self._supervisor.problems()
        known = {**dict.fromkeys(supervisor.models(), 1), **dict.fromkeys(problems, 0)}
        lines = [
            "# HELP mixer_triton_ready Whether requests may be sent to this Triton.",
            "# TYPE mixer_triton_ready gauge",
            f"mixer_triton_ready {int(self.ready())}",
            "# HELP mixer_triton_model_healthy Whether the model answers its probe as it should.",
            "# TYPE mixer_triton_model_healthy gauge",
            *(
                f"mixer_triton_model_healthy{{model={quoted(name)}}} {healthy}"
                for name, healthy in sorted(known.items())
                if name
            ),
            "# HELP mixer_triton_restarts_total How often tritonserver was started again, and why.",
            "# TYPE mixer_triton_restarts_total counter",
            *(
                f'mixer_triton_restarts_total{{reason="{reason.value}"}} '
                f"{supervisor.restarts[reason]}"
                for reason in Reason
            ),
            *_processes(),
            *self._more_metrics(),
        ]
        return "\n".join(lines) + "\n"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = self._page(head.split(b"\r\n", 1)[0].decode("latin-1"))
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                    "Connection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
            pass  # the client has gone, or sent no request
        finally:
            with contextlib.suppress(OSError):
                writer.close()
                await writer.wait_closed()

    def _page(self, line: str) -> tuple[str, str, bytes]:
        method, _, rest = line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        text, plain = "text/plain; version=0.0.4; charset=utf-8", "text/plain; charset=utf-8"
        if method != "GET":
            return "405 Method Not Allowed", plain, b"GET only\n"
        if path == "/livez":
            return "200 OK", plain, b"the supervisor works\n"
        if path == "/metrics":
            return "200 OK", text, self.metrics().encode()
        if path == "/readyz":
            ready = self.ready()
            problems = self._supervisor.problems()
            body = {"ready": ready, "models": self._supervisor.models(), "problems": problems}
            status = "200 OK" if ready else "503 Service Unavailable"
            return status, "application/json", json.dumps(body).encode() + b"\n"
        return "404 Not Found", plain, b"/livez, /readyz, /metrics\n"


def _processes() -> Iterable[str]:
    """CPU and memory of the supervisor and its processes: Triton's own metrics have neither."""
    found = usage(os.getpid())
    for name, kind, text in (
        ("cpu_seconds_total", "counter", "CPU time of a process of this Triton."),
        ("memory_bytes", "gauge", "Resident memory of the process."),
    ):
        yield f"# HELP mixer_triton_process_{name} {text}"
        yield f"# TYPE mixer_triton_process_{name} {kind}"
        for each in found:
            value = each.memory_bytes if kind == "gauge" else f"{each.cpu_seconds:.2f}"
            yield (
                f"mixer_triton_process_{name}"
                f'{{pid="{each.pid}",program={quoted(each.name)}}} {value}'
            )


def quoted(label: str) -> str:
    """The value of a label in Prometheus' text format."""
    escaped = label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
