"""The door: what the app would refuse as too busy is refused before it gets that far.

In: the ASGI scope of a request whose head has come, and nothing yet of its body. Out: the problem
that answers it, or None: then it goes the usual way, where the same gate stands. Under overload
most requests end here, and what they cost is taken from those that are answered. So the door knows
the plain case alone and leaves to the app whatever is out of the ordinary.
"""

import time

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import Scope

from server.observability import telemetry, tracing
from server.observability.timings import Timings
from server.problems import ModelNotReady, Problem, TooBusy
from server.web.api_keys import presented
from server.web.deadlines import seconds_for
from server.web.endpoints import parameters
from server.web.middleware import is_small, request_id_of


class Door:
    """Stands before `app`, in whose state are the settings, the keys and the gates."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._tracing = tracing.wanted()

    def refusal(self, scope: Scope) -> Problem | None:
        """Why the request is refused; it has been counted and logged then."""
        state = self._app.state
        if (
            scope["path"] not in telemetry.CLASSIFYING
            or scope["method"] != "POST"
            or state.draining
            or self._tracing
            or not is_small(scope["headers"])
        ):
            return None
        began = time.perf_counter()
        scope["app"] = self._app
        request = Request(scope)
        if state.settings.cors_origins and "origin" in request.headers:
            return None
        try:
            model, _ = parameters(request)
            seconds = seconds_for(request, state.settings)
        except Problem:
            return None
        try:
            state.classifier.check(model, 1, seconds)
        except (TooBusy, ModelNotReady) as problem:
            problem.forget()
            if state.keys is not None:
                name = state.keys.name_of(presented(scope["headers"]) or b"")
                if name is None:
                    return None
                scope["state"]["key"] = name
            request_id = request_id_of(scope).decode()
            scope["state"]["timings"] = Timings(began, request_id, model.name)
            scope["state"]["problem"] = problem
            telemetry.count(scope, scope["path"], int(problem.status))
            if state.settings.access_log:
                telemetry.log(scope, int(problem.status), time.perf_counter() - began)
            return problem
        return None
