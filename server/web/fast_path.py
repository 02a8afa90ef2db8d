"""The fast path: the most frequent requests skip the layers that they do not need.

In: the app and any ASGI request. Out: POST /classify and /classify/batch go through this project's
own middleware straight to their endpoints, everything else through the whole app, HEAD as GET.

This is the only place that bypasses FastAPI, and it does all that FastAPI would have done:

- the route is found by a dictionary instead of by regular expressions;
- the query and the header are read by the functions of parameters.py, which remember the last
  queries, with the pydantic models that FastAPI would validate by;
- the answer becomes JSON by the pydantic model that the endpoint returns, without a copy that is
  validated again;
- problems are raised to `Envelope`, past Starlette's layers for errors and FastAPI's for
  dependencies, which these endpoints have none of.

docs/performance.md has the measured gain.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.types import ASGIApp, Receive, Scope, Send

from server.web.endpoints import classify, classify_batch, router
from server.web.parameters import TIMEOUT, Asked, asked, timeout

FAST = {classify, classify_batch}
Endpoint = Callable[[Request, Asked, float | None], Awaitable[object]]


class FastPath:
    """The ASGI app `app`, with a shorter way to the endpoints `FAST`."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self._ways: dict[str, tuple[APIRoute, Endpoint, Callable[[Any], bytes]]] = {
            route.path: (route, route.endpoint, TypeAdapter(route.response_model).dump_json)
            for route in router.routes
            if isinstance(route, APIRoute) and route.endpoint in FAST
        }
        self._short: ASGIApp = self._answer
        for middleware, arguments, options in reversed(app.user_middleware):
            self._short = middleware(self._short, *arguments, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._ways:
            scope["app"] = self.app
            await self._short(scope, receive, send)
        else:
            if scope["type"] == "http" and scope["method"] == "HEAD":
                # RFC 9110, 9.3.2. The scope of which this is a copy tells uvicorn to send no body.
                scope = {**scope, "method": "GET"}
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"], endpoint, to_json = self._ways[scope["path"]]  # as Starlette's router says
        request = Request(scope, receive)
        seconds = timeout(request.headers.get(TIMEOUT))
        body = to_json(await endpoint(request, asked(scope["query_string"]), seconds))
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
