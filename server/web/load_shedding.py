"""Load shedding: requests that the app would refuse as too busy are refused before they reach it.

In: the ASGI scope of a request whose head has come, and nothing yet of its body. Out: the messages
that answer it, or None: then the app asks the same admission again. Under overload most requests
end here, and their cost is lost for the requests that are answered. So this module handles only the
plain case, and leaves everything unusual to the app.
"""

import logging
import time
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.types import Message, Scope

from server.observability import telemetry, tracing
from server.observability.timings import Timings
from server.problems import ModelNotReady, Problem, TooBusy
from server.web.api_keys import presented
from server.web.connections import ClientConnection
from server.web.deadlines import seconds_for
from server.web.middleware import request_id_of
from server.web.parameters import TIMEOUT, asked, timeout
from server.web.state import State

logger = logging.getLogger(__name__)


class LoadShedding:
    """Runs before the app that has this state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._tracing = tracing.wanted()

    def refusal(self, scope: Scope, connection: ClientConnection) -> tuple[Message, Message] | None:
        """The answer to a request that is refused; it has been counted and logged then."""
        if (
            scope["path"] not in telemetry.CLASSIFYING
            or scope["method"] != "POST"
            or self._state.draining
            or self._tracing
        ):
            return None
        try:
            return self._refusal(scope, connection)
        except Exception:
            # The app has an answer to every request, also to this one.
            logger.exception("%s %s: refusing failed", scope["method"], quote(scope["path"]))
            return None

    def _refusal(
        self, scope: Scope, connection: ClientConnection
    ) -> tuple[Message, Message] | None:
        began = time.perf_counter()
        state = self._state
        headers = Headers(scope=scope)
        if state.settings.cors_origins and "origin" in headers:
            return None
        try:
            model, _ = asked(scope["query_string"]).resolve(state.models)
            seconds = seconds_for(timeout(headers.get(TIMEOUT)), state.settings)
        except Problem:
            return None
        if state.keys is not None:
            name = state.keys.name_of(presented(scope["headers"]) or b"")
            if name is None:
                return None
            scope["state"]["key"] = name
        try:
            state.classifier.check(model, 1, seconds, state.clients.name(scope))
        except (TooBusy, ModelNotReady) as problem:
            problem.forget()
            request_id = request_id_of(scope)
            timings = Timings(began, request_id.decode(), model.name)
            scope["state"]["timings"] = timings
            scope["state"]["problem"] = problem
            status = int(problem.status)
            telemetry.count(scope, scope["path"], status)
            if state.settings.access_log:
                telemetry.log(scope, status, time.perf_counter() - began)
            body = problem.body(timings.request_id)
            answer = [
                *problem.headers(),
                (b"content-length", b"%d" % len(body)),
                (b"x-request-id", request_id),
                (b"server-timing", timings.header()),
                *connection.headers(close=not connection.keeps(refused=True)),
            ]
            return (
                {"type": "http.response.start", "status": status, "headers": answer},
                {"type": "http.response.body", "body": body},
            )
        return None
