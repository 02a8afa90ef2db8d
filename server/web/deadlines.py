"""How long a request is worth working on: until its deadline, and while its client is there.

In: a request. Out: the seconds that it may take, and a context that ends with the client.
"""

import asyncio
import contextlib
from collections.abc import Iterator

from starlette.requests import ClientDisconnect, Request

from server.settings import Settings
from server.web.connections import connection_of


def seconds_for(asked: float | None, settings: Settings) -> float:
    """Seconds from the last byte of a request to its answer, for `asked` in `X-Request-Timeout`."""
    if asked is None:
        return settings.request_timeout
    return min(asked, settings.max_request_timeout)


@contextlib.contextmanager
def while_connected(request: Request) -> Iterator[None]:
    """Give up the work inside when the client goes away; the body must have been read.

    Raises `ClientDisconnect` then. The connection (server/web/connections.py) reports that.
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
