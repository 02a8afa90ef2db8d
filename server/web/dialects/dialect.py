"""What makes a dialect: its routes, its paths, its form of an error, what needs no key.

In: a problem. Out: its JSON as the clients of one protocol read it.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from server.engines.model import Model
from server.problems import BadBody, Problem, UnknownModel
from server.web.json_bodies import kind_of
from server.web.openapi import HEADERS, SECURITY, Fragment
from server.web.state import state_of

Name = Annotated[str, Path(description="Of the model.")]
Version = Annotated[str, Path(description="Of the model; the one that is served.")]


def error_text(problem: Problem, request_id: str) -> dict[str, Any]:
    """`error` is a text; the members of RFC 9457 beside it disturb no client."""
    return {"error": problem.detail, **problem.document(), "request_id": request_id}


@dataclass(frozen=True)
class Dialect:
    """`open` are the paths that need no API key: probes."""

    name: str
    router: APIRouter
    paths: re.Pattern[str]
    open: frozenset[str] = frozenset()
    error: Callable[[Problem, str], dict[str, Any]] = field(default=error_text)


def json_response(content: object, indent: int | None = None) -> Response:
    """An answer in JSON, whose Content-Type has no parameters: some clients compare it."""
    separators = None if indent else (",", ":")
    body = json.dumps(content, ensure_ascii=False, separators=separators, indent=indent)
    return Response(body.encode(), headers={"content-type": "application/json"})


def model_of(request: Request, name: str | None, version: str | None = None) -> Model:
    """The model of a path, the default one for None. Raises as `Engine.get`, or `UnknownModel`."""
    models = state_of(request).models
    model = models.get(models.default if name is None else name)
    if version is not None and version != model.version:
        raise UnknownModel(f"model {model.name!r} is served in version {model.version}")
    return model


def whole(given: object, name: str, most: int) -> int:
    """A whole number of JSON, 1 to `most`. Raises `BadBody`."""
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
        shown = given if isinstance(given, int) else kind_of(given)
        raise BadBody(f"{name} is {shown}, expected a whole number from 1 to {most}")
    return given


def documented(body: Fragment | None = None, *, binary: bool = False) -> dict[str, Any]:
    """What the OpenAPI document says of a route: its body, its errors, its security."""
    error = {"application/json": {"schema": {"type": "object"}, "example": {"error": "why"}}}
    answer: Fragment = {"application/json": {"schema": {}, "example": {}}}
    if binary:
        answer["application/octet-stream"] = {"schema": {}, "example": ""}
    responses: dict[int | str, Fragment] = {
        200: {"description": "OK", "headers": HEADERS, "content": answer}
    }
    for status in ("4XX", "5XX"):
        responses[status] = {"description": "An error", "headers": HEADERS, "content": error}
    extra: Fragment = {**SECURITY}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": body}
    return {"responses": responses, "openapi_extra": extra, "response_class": Response}


IMAGE: Fragment = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
OBJECT: Fragment = {"application/json": {"schema": {"type": "object"}}}
