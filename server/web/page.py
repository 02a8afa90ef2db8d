"""The page at `/`: one file, which a browser needs nothing else for.

In: page.html. Out: its bytes with headers that let it run its own script and style, talk to this
server, and nothing more: a label that looks like a script stays a label.
"""

import base64
import hashlib
import re
from pathlib import Path

from fastapi import Request, Response

PAGE = (Path(__file__).parent / "page.html").read_bytes()


def policy(page: bytes) -> str:
    """The Content-Security-Policy (W3C CSP 3) that allows exactly the parts inside `page`."""

    def hashes(element: bytes) -> str:
        parts = re.findall(b"<%s>(.*?)</%s>" % (element, element), page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(part).digest()).decode() for part in parts]
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {hashes(b'script')}",
            f"style-src {hashes(b'style')}",
            "img-src 'self' blob: data:",
            "media-src blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


HEADERS = {
    "Content-Security-Policy": policy(PAGE),
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


async def page(_request: Request) -> Response:
    """GET /."""
    return Response(PAGE, media_type="text/html", headers=HEADERS)
