"""The parts of the OpenAPI document that FastAPI cannot see in the endpoints.

In: the app. Out: its document. Parameters and answers come from the endpoints' own types; bodies
are read by hand (bodies.py) and problems are raised, so these two are described here.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from server.problems import (
    MEDIA_TYPE,
    BadBody,
    BadParameter,
    BodyTooLarge,
    ContractBroken,
    DeadlinePassed,
    Draining,
    HeadTooLarge,
    InternalError,
    ModelNotReady,
    NoImage,
    Problem,
    SlowRequest,
    TooBusy,
    TooManyPixels,
    TritonAway,
    Unauthorized,
    UnknownModel,
    UnreadableImage,
    UnsupportedEncoding,
    UnsupportedType,
)
from server.web.schemas import ProblemDocument

Fragment = dict[str, Any]

TEXT: Fragment = {"type": "string"}
BINARY: Fragment = {"schema": {"type": "string", "format": "binary"}}
PROBLEM: Fragment = {"$ref": "#/components/schemas/Problem"}


def form(image: Fragment, name: str = "image") -> Fragment:
    """A form with that field."""
    return {
        "multipart/form-data": {
            "schema": {"type": "object", "required": [name], "properties": {name: image}}
        }
    }


def _json_with(name: str, schema: Fragment) -> Fragment:
    """A JSON object of that one member."""
    return {
        "type": "object",
        "required": [name],
        "properties": {name: schema},
        "additionalProperties": False,
    }


def _images(in_form: Fragment, in_json: Fragment) -> Fragment:
    """A body that is an image, a form with that, or JSON of that schema."""
    return {
        "requestBody": {
            "required": True,
            "content": {
                "image/*": BINARY,
                "application/octet-stream": BINARY,
                **form(in_form),
                "application/json": {"schema": in_json},
            },
        }
    }


_BASE64: Fragment = {"type": "string", "contentEncoding": "base64"}
_ONE = _json_with("image", _BASE64)
_MANY = _json_with("images", {"type": "array", "minItems": 1, "items": _BASE64})
IMAGE_BODY = _images(BINARY["schema"], _ONE)
BATCH_BODY: Fragment = {
    "requestBody": {
        "required": True,
        "content": form({"type": "array", "items": BINARY["schema"]}),
    }
}
EMBED_BODY = _images({"type": "array", "items": BINARY["schema"]}, {"oneOf": [_ONE, _MANY]})

SHAPE_HEADER = "X-Embedding-Shape"

SECURITY_SCHEMES: Fragment = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
# The empty entry: a server without --keys-file asks for no key.
SECURITY: Fragment = {"security": [{"bearer": []}, {"header": []}, {}]}

PROMETHEUS: Fragment = {
    "description": "Prometheus' text format",
    "content": {"text/plain": {"schema": TEXT, "example": "mixer_requests_in_flight 0.0\n"}},
}

SERVING: tuple[type[Problem], ...] = (ContractBroken, TritonAway, ModelNotReady, DeadlinePassed)
READINESS: tuple[type[Problem], ...] = (*SERVING, Draining)
CLASSIFY: tuple[type[Problem], ...] = (
    NoImage,
    BadBody,
    Unauthorized,
    UnknownModel,
    BodyTooLarge,
    TooManyPixels,
    UnsupportedType,
    UnsupportedEncoding,
    UnreadableImage,
    BadParameter,
    TooBusy,
    *SERVING,
)
EVERYWHERE: tuple[type[Problem], ...] = (SlowRequest, HeadTooLarge, InternalError)
HEADERS: Fragment = {
    "X-Request-ID": {"schema": TEXT, "description": "The client's own, or a new one."},
    "Server-Timing": {"schema": TEXT, "description": "Milliseconds of each stage (W3C)."},
}


def responses(answer: type[BaseModel], *problems: type[Problem]) -> dict[int | str, Fragment]:
    """The `responses` of an operation: 200, and the statuses of `problems` and `EVERYWHERE`.

    The schema of 200 is that of the endpoint; the example is the one in `answer`'s own schema.
    """
    example = {"example": answer.model_json_schema()["example"]}
    answers: dict[int | str, Fragment] = {
        200: {"description": "OK", "headers": HEADERS, "content": {"application/json": example}}
    }
    by_status: dict[int, list[type[Problem]]] = {}
    for problem in (*problems, *EVERYWHERE):
        by_status.setdefault(int(problem.status), []).append(problem)
    for status, classes in sorted(by_status.items()):
        answers[status] = {
            "description": "; ".join(c.title for c in classes),
            "headers": HEADERS,
            "content": {
                MEDIA_TYPE: {
                    "schema": PROBLEM,
                    "examples": {c.name: {"value": _example(c)} for c in classes},
                }
            },
        }
        if any(c.retry_after is not None for c in classes):
            answers[status]["headers"] = HEADERS | {
                "Retry-After": {
                    "schema": {"type": "integer", "minimum": 1},
                    "description": "Seconds to wait.",
                }
            }
    return answers


def _example(problem: type[Problem]) -> Fragment:
    detail = (problem.__doc__ or "").splitlines()[0]
    return {**problem(detail).document(), "request_id": "6f1c2b7e5d3a4c4f9b1e8a7d2c3f4e5a"}


def document(app: FastAPI) -> Fragment:
    """The whole document of an app."""
    made = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    _, problem = models_json_schema(
        [(ProblemDocument, "serialization")], ref_template="#/components/schemas/{model}"
    )
    components = made["components"]
    components["schemas"] |= {"Problem": problem["$defs"]["ProblemDocument"]}
    components["securitySchemes"] = SECURITY_SCHEMES
    # FastAPI documents errors in a form of its own for refused parameters. No answer has that form.
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    for path in made["paths"].values():
        for operation in path.values():
            content = operation["responses"].get("422", {}).get("content", {})
            if "application/json" in content:
                del operation["responses"]["422"]
    return made
