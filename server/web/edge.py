"""The outermost ASGI app, which the HTTP server calls: the first and the last step of a request.

In: any ASGI request whose body has not been read. Out: a refusal where the work already accepted
cannot be done in time (load shedding), else whatever the app answers, by the fast path where there
is one. At the end the app tells the connection, which then hands on the next request.
"""

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from server.web.connections import connection_of
from server.web.fast_path import FastPath
from server.web.load_shedding import LoadShedding
from server.web.state import state_of


class Edge:
    """The outermost ASGI app."""

    def __init__(self, app: FastAPI) -> None:
        self._shedding = LoadShedding(state_of(app))
        self._app = FastPath(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = connection_of(scope)
        try:
            refusal = self._shedding.refusal(scope, connection)
            if refusal is None:
                await self._app(scope, receive, send)
            else:
                for message in refusal:
                    await send(message)
        finally:
            connection.answered()
