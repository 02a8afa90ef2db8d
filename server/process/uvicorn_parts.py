"""The parts of uvicorn that this project uses beyond the documented ones, checked at the start.

In: the uvicorn that is installed. Out: its HTTP protocol, as a factory of asyncio protocols; or
`UnsupportedUvicornError`, whose message names the version and what it lacks. Supported are 0.29.0
and later; a name that an upgrade changes is reported at the start and not by a client.
"""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import uvicorn

# Methods of the class that parses HTTP and calls the app, with their arguments.
PROTOCOL = {
    "connection_made": ("transport",),
    "connection_lost": ("exc",),
    "data_received": ("data",),
    "pause_writing": (),
    "resume_writing": (),
    "shutdown": (),
}
MADE_WITH = ("config", "server_state", "app_state", "_loop")
# Of `uvicorn.Server`: the first is overridden, the second called.
SERVER = {"capture_signals": (), "serve": ("sockets",)}


class UnsupportedUvicornError(RuntimeError):
    """This uvicorn lacks something; the message is a sentence about it."""


def http_protocol() -> Callable[..., asyncio.Protocol]:
    """uvicorn's protocol on httptools. Raises `UnsupportedUvicornError`."""
    try:
        config = uvicorn.Config(_no_app, http="httptools", ws="none", log_config=None)
        config.load()
        protocol: Any = config.http_protocol_class
    except Exception as error:
        raise _unsupported(f"its HTTP protocol on httptools cannot be loaded: {error!r}") from error
    _check(protocol, {"__init__": MADE_WITH, **PROTOCOL})
    _check(uvicorn.Server, SERVER)
    made: Callable[..., asyncio.Protocol] = protocol
    return made


def _check(owner: type, methods: dict[str, tuple[str, ...]]) -> None:
    for name, expected in methods.items():
        found = getattr(owner, name, None)
        # asyncio.Protocol has empty callbacks: a name that is only inherited is one that uvicorn
        # lacks.
        if found is None or found is getattr(asyncio.Protocol, name, None):
            raise _unsupported(f"{owner.__name__} has no {name}()")
        given = tuple(inspect.signature(found).parameters)[1:]
        if given != expected:
            raise _unsupported(
                f"{owner.__name__}.{name}() takes ({', '.join(given)}), "
                f"expected ({', '.join(expected)})"
            )


def _unsupported(what: str) -> UnsupportedUvicornError:
    return UnsupportedUvicornError(
        f"uvicorn {uvicorn.__version__} cannot be served with: {what}; "
        "install the version that requirements/constraints.txt names"
    )


async def _no_app(_scope: object, _receive: object, _send: object) -> None:
    """Stand in for an app that is never called."""
