"""Paths that may have an address of their own, or none: /metrics, and /docs with /openapi.json.

In: any ASGI request, with the port that it came to. Out: `NotFound` if its path is not served at
that port, else the app's answer.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from server.problems import NotFound
from server.settings import Settings
from server.web.state import State


def moved(settings: Settings) -> bool:
    """Whether anything has another place than the main address."""
    return settings.metrics != "here" or settings.docs != "here"


def group(path: str) -> str:
    """The setting that says where a path is served; "" for a path at the main address."""
    if path == "/metrics":
        return "metrics"
    return "docs" if path == "/openapi.json" or (path + "/").startswith("/docs/") else ""


class Places:
    """ASGI middleware within `Envelope`, where something is `moved`."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app = app
        self._ports = state.ports
        settings = state.settings
        self._off = {name for name in ("metrics", "docs") if getattr(settings, name) == "off"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise `NotFound`."""
        if scope["type"] == "http":
            name = group(scope["path"])
            port = scope["server"][1]
            # By the ports, once the gateway listens on them.
            right = self._ports[name] == port if name in self._ports else self._is_main(port)
            if name in self._off or not right:
                raise NotFound(f"there is no {scope['path']} at this address")
        await self.app(scope, receive, send)

    def _is_main(self, port: int) -> bool:
        return port not in self._ports.values()
