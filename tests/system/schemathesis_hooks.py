"""What Schemathesis changes in the requests that it makes from the OpenAPI document."""

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(
    _context: schemathesis.HookContext, case: schemathesis.Case[Any], **_kwargs: object
) -> None:
    """Ask for no deadline that cannot be kept: a 504 would be right, and say nothing."""
    asked = case.headers.get("X-Request-Timeout") if case.headers else None
    try:
        seconds = float(asked or "nan")
    except ValueError:
        return
    if 0 < seconds < 10:
        case.headers["X-Request-Timeout"] = "10"
