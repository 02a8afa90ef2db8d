"""What the app of one gateway process holds, typed; Starlette's own `app.state` has no types.

In: the settings, and the engine once serving has started. Out: one object for every request.
"""

from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Scope

from server.engines.engine import Engine
from server.engines.model import Model
from server.observability.timings import Timings
from server.problems import Draining
from server.serving.buffers import Buffers
from server.serving.classify import Classifier
from server.serving.readiness import Readiness
from server.serving.shadow import Shadow
from server.settings import Settings
from server.web.api_keys import KeyFile
from server.web.clients import Clients
from server.web.paced import Paced


@dataclass
class State:
    """Objects that requests share. Those that need the engine exist while the app serves."""

    settings: Settings
    buffers: Buffers
    keys: KeyFile | None
    clients: Clients
    draining: bool = False
    ports: dict[str, int] = field(default_factory=dict)  # of paths with an address of their own
    models: Engine = field(init=False)
    readiness: Readiness = field(init=False)
    classifier: Classifier = field(init=False)
    metrics: Paced = field(init=False)
    shadow: Shadow | None = None

    async def check_ready(self) -> Model:
        """The default model, where this gateway may be sent requests.

        Raises `Draining`, or the problem that a request would get.
        """
        if self.draining:
            raise Draining("this gateway is about to end; send new requests to another")
        return await self.readiness.check()


def put_state(app: Starlette, state: State) -> None:
    """Give the state to the app."""
    app.state.gateway = state


def state_of(source: Starlette | Request) -> State:
    """The state of an app, or of the app that a request has come to."""
    app = source.app if isinstance(source, Request) else source
    state: State = app.state.gateway
    return state


def timings_of(scope: Scope) -> Timings:
    """Where the time of a request went so far; `Envelope` has put it there."""
    timings: Timings = scope["state"]["timings"]
    return timings
