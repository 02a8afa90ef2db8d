"""The pages: one at `/` to try the server with, and at /docs the documentation of every call.

In: page.html, and Swagger UI's files as the package fastapi-offline ships them. Out: their bytes,
all from this server, with headers that let a page run its own script and style, talk to this
server, and nothing more: a label that looks like a script stays a label.
"""

import base64
import functools
import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response

from server.problems import NotFound
from server.web.openapi import document
from server.web.state import state_of

router = APIRouter(include_in_schema=False)

PAGE = (Path(__file__).parent / "page.html").read_bytes()
DOCS = (Path(__file__).parent / "docs.html").read_bytes()
SWAGGER = files("fastapi_offline") / "static"
SCRIPT, STYLE = "swagger-ui-bundle.js", "swagger-ui.css"
TYPES = {SCRIPT: "text/javascript", STYLE: "text/css"}


def policy(page: bytes, *own: str) -> str:
    """The Content-Security-Policy (W3C CSP 3) that allows exactly the parts inside `page`.

    It also allows this server's own files for the directives in `own`, for example "script-src".
    """

    def sources(kind: str, element: bytes) -> str:
        parts = re.findall(b"<%s>(.*?)</%s>" % (element, element), page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(part).digest()).decode() for part in parts]
        named = [f"'sha256-{digest}'" for digest in digests]
        return " ".join([kind, *(["'self'"] if kind in own else []), *named])

    return "; ".join(
        (
            "default-src 'none'",
            sources("script-src", b"script"),
            sources("style-src", b"style"),
            "img-src 'self' blob: data:",
            "media-src blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _headers(page: bytes, *own: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": policy(page, *own),
        "Cache-Control": "no-cache",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


# The page for a server whose /docs has another address or none.
PAGE_WITHOUT_DOCS = re.sub(b"<footer>.*?</footer>", b"", PAGE)
PAGE_HEADERS = _headers(PAGE)
DOCS_HEADERS = _headers(DOCS, "script-src", "style-src")


@router.get("/")
async def page(request: Request) -> Response:
    """GET /."""
    here = state_of(request).settings.docs == "here"
    return Response(
        PAGE if here else PAGE_WITHOUT_DOCS, media_type="text/html", headers=PAGE_HEADERS
    )


@router.get("/docs")
async def docs() -> Response:
    """GET /docs."""
    return Response(DOCS, media_type="text/html", headers=DOCS_HEADERS)


@router.get("/docs/{name}")
async def docs_file(name: str) -> Response:
    """A file of Swagger UI."""
    if name not in TYPES:
        raise NotFound(f"there is no /docs/{name}")
    headers = {"Cache-Control": "max-age=3600", "X-Content-Type-Options": "nosniff"}
    return Response(_swagger(name), media_type=TYPES[name], headers=headers)


@functools.cache
def _swagger(name: str) -> bytes:
    return (SWAGGER / name).read_bytes()


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """GET /openapi.json."""
    return Response(_document(request.app), media_type="application/json")


def _document(app: FastAPI) -> bytes:
    """Made once: it does not change while the server runs."""
    made: bytes | None = getattr(app.state, "openapi", None)
    if made is None:
        made = json.dumps(document(app), ensure_ascii=False, separators=(",", ":")).encode()
        app.state.openapi = made
    return made
