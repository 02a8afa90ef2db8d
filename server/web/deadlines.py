"""How long a request is worth working on: until its deadline, and while its client is there.

In: a request. Out: the seconds that it may take, and a context that ends with the client.
"""

import asyncio
import contextlib
import math
from collections.abc import Iterator

from starlette.requests import ClientDisconnect, Request

from server.problems import BadParameter
from server.settings import Settings
from server.web.connections import connection_of

HEADER = "X-Request-Timeout"


def seconds_for(request: Request, settings: Settings) -> float:
    """Seconds from the last byte of the request to its answer.

    `X-Request-Timeout` asks for them, up to the setting `max_request_timeout`. Raises
    `BadParameter` unless it is a positive number.
    """
    asked = request.headers.get(HEADER)
    if asked is None:
        return settings.request_timeout
    try:
        seconds = float(asked)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadParameter(
            f"{HEADER} is {asked[:20]!r}, expected a positive number of seconds such as 2.5"
        )
    return min(seconds, settings.max_request_timeout)


@contextlib.contextmanager
def while_connected(request: Request) -> Iterator[None]:
    """Give up what happens inside when the client goes away; the body must have been read.

    Raises `ClientDisconnect` then. The connection (server/web/connections.py) tells it.
    """
    task = asyncio.current_task()
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        if task is not None:
            task.cancel()

    connection = connection_of(request.scope)
    connection.lost = leave
    try:
        yield
    except asyncio.CancelledError:
        if gone and task is not None and task.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        connection.lost = None
