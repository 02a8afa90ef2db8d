"""The way of the requests that come most often, past the layers that they do not need.

In: the app and any ASGI request. Out: POST /classify and /classify/batch go through this project's
own middleware straight to their endpoints, everything else through the whole app, HEAD as GET.
What FastAPI and Starlette put around an endpoint, for errors and dependencies that these do not
have, took a sixth of what the gateway spends on a small image (docs/performance.md).
"""

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send


class FastPath:
    """The ASGI app `app`, with a shorter way to its POST routes.

    Their endpoints take the request and return the response, as those of `PlainRoute`.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self._routes = {
            route.path: route
            for route in app.routes
            if isinstance(route, APIRoute) and route.methods == {"POST"}
        }
        self._short: ASGIApp = self._answer
        for middleware, arguments, options in reversed(app.user_middleware):
            self._short = middleware(self._short, *arguments, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._routes:
            scope["app"] = self.app
            await self._short(scope, receive, send)
        else:
            if scope["type"] == "http" and scope["method"] == "HEAD":
                # RFC 9110, 9.3.2. The scope of which this is a copy tells uvicorn to send no body.
                scope = {**scope, "method": "GET"}
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = route = self._routes[scope["path"]]  # as Starlette's router says it
        response = await route.endpoint(Request(scope, receive))
        await response(scope, receive, send)
