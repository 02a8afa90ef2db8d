"""Counts and logs every request, once it has been answered.

In: any ASGI request on its way to the app. Out: Prometheus metrics, and with --access-log a line of
log. Never a byte of an image, nor its file name, nor a key.
"""

import logging
import time
from http import HTTPStatus
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.observability import metrics
from server.observability.timings import STAGES
from server.problems import BadParameter, Problem

logger = logging.getLogger("server.access")

CLASSIFYING = {"/classify", "/classify/batch"}


class Telemetry:
    """ASGI middleware around `Envelope`, whose `Timings` and problem it reads afterwards."""

    def __init__(self, app: ASGIApp, log: bool) -> None:
        self.app = app
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, then count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0  # no answer: the client went away

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        metrics.in_flight.inc()
        try:
            await self.app(scope, receive, send_and_note)
        finally:
            metrics.in_flight.dec()
            # The route's own pattern: a client must not be able to invent label values.
            path = getattr(scope.get("route"), "path", "other")
            if not status and "problem" in scope["state"]:  # the connection has answered it
                status = int(scope["state"]["problem"].status)
            count(scope, path, status)
            if self.log:
                log(scope, status, time.perf_counter() - began)


def refused(problem: Problem) -> None:
    """Count a refused image by its problem."""
    if problem.status in metrics.ABOUT_IMAGES and not isinstance(problem, BadParameter):
        metrics.unreadable.labels(problem.name).inc()


def count(scope: Scope, path: str, status: int) -> None:
    """Count a request by the pattern of its path and by the data in the state of its scope."""
    state = scope["state"]
    timings = state.get("timings")
    model = timings.model if timings is not None else ""
    metrics.requests.labels(path, model, str(status or 499)).inc()
    problem = state.get("problem")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        metrics.shed.inc()
    # A request with a model was a classification in another dialect.
    if timings is None or not (model or path in CLASSIFYING):
        return
    if problem is not None:
        refused(problem)
    for stage in STAGES:
        seconds = getattr(timings, stage)
        if seconds is not None:
            metrics.seconds_of(stage, model).observe(seconds)
    metrics.seconds_of("total", model).observe(time.perf_counter() - timings.started)


def no_request(problem: Problem, request_id: str, *, log: bool) -> None:
    """Count, and with `log` also log, an incomplete request: nothing else is known of it."""
    status = int(problem.status)
    metrics.requests.labels("other", "", str(status)).inc()
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        metrics.shed.inc()
    if log:
        fields = {"status": status, "request_id": request_id, "problem": problem.name}
        logger.info("no whole request: %d", status, extra={"fields": fields})


def log(scope: Scope, status: int, seconds: float) -> None:
    """Write the line of one request."""
    state = scope["state"]
    timings = state.get("timings")
    fields: dict[str, object] = {
        "method": scope["method"],
        "path": quote(scope["path"]),
        "status": status or 499,
        "milliseconds": round(1000 * seconds, 3),
    }
    if timings is not None:
        fields["request_id"] = timings.request_id
        if timings.model:
            fields["model"] = timings.model
        for stage in STAGES:
            spent = getattr(timings, stage)
            if spent is not None:
                fields[f"{stage}_milliseconds"] = round(1000 * spent, 3)
    for name in ("key", "problem"):
        if name in state:
            found = state[name]
            fields[name] = found.name if isinstance(found, Problem) else found
    message = f"{fields['method']} {fields['path']} {fields['status']}"
    logger.info(message, extra={"fields": fields})
