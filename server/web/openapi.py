"""The parts of the OpenAPI document that FastAPI cannot see in the routes.

In: nothing. Out: bodies, parameters, answers and problems of each operation, with examples. The
requests are read by hand (bodies.py, endpoints.py), so they are described by hand.
"""

from typing import Any

from server.problems import (
    CLASSES,
    MEDIA_TYPE,
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
    UnsupportedType,
)

Fragment = dict[str, Any]

TEXT: Fragment = {"type": "string"}
COUNT: Fragment = {"type": "integer", "minimum": 1}


def _object(**properties: Fragment) -> Fragment:
    return {"type": "object", "required": list(properties), "properties": properties}


def _ref(name: str) -> Fragment:
    return {"$ref": f"#/components/schemas/{name}"}


def _list_of(item: Fragment) -> Fragment:
    return {"type": "array", "items": item}


SCHEMAS: Fragment = {
    "Problem": {
        **_object(
            type={**TEXT, "enum": sorted(c.type_uri() for c in CLASSES)},
            title=TEXT,
            status={"type": "integer"},
            detail=TEXT,
            request_id=TEXT,
        ),
        "description": "An error as RFC 9457 defines it. `type` tells the problems apart.",
    },
    "Prediction": _object(
        label=TEXT,
        index={"type": "integer", "minimum": 0, "description": "Of the class, from 0."},
        probability={"type": "number", "minimum": 0, "maximum": 1},
    ),
    "Classification": _object(model=TEXT, version=TEXT, predictions=_list_of(_ref("Prediction"))),
    "BatchClassification": _object(
        model=TEXT,
        version=TEXT,
        results=_list_of(
            {
                "type": "object",
                "required": ["filename"],
                "properties": {
                    "filename": {"type": ["string", "null"]},
                    "predictions": _list_of(_ref("Prediction")),
                    "error": _object(type=TEXT, title=TEXT, status=COUNT, detail=TEXT),
                },
                "description": "In the order sent; each with `predictions` or an `error`.",
            }
        ),
    ),
    "Model": {
        "type": "object",
        "required": ["name", "version", "state", "default"],
        "properties": {
            "name": TEXT,
            "version": TEXT,
            "state": {**TEXT, "enum": ["ready", "unavailable"]},
            "default": {"type": "boolean", "description": "Serves requests that name no model."},
            "reason": {**TEXT, "description": "Why it is unavailable."},
            "input": _object(height=COUNT, width=COUNT),
            "classes": COUNT,
            "max_batch_size": {"type": "integer"},
            "provenance": {"type": "object", "additionalProperties": TEXT},
            "labels": {**_list_of(TEXT), "description": "Only for a single model."},
        },
    },
    "Models": _object(default=TEXT, models=_list_of(_ref("Model"))),
    "Status": _object(status=TEXT),
}

PREDICTIONS_EXAMPLE = [
    {"label": "cat", "index": 3, "probability": 0.9700001},
    {"label": "dog", "index": 5, "probability": 0.0210042},
]
MODEL_EXAMPLE: Fragment = {
    "name": "mixer_cifar10",
    "version": "1",
    "state": "ready",
    "input": {"height": 32, "width": 32},
    "classes": 10,
    "max_batch_size": 32,
    "provenance": {"family": "mixer", "precision": "fp32"},
    "default": True,
}
EXAMPLES: Fragment = {
    "Classification": {
        "model": "mixer_cifar10",
        "version": "1",
        "predictions": PREDICTIONS_EXAMPLE,
    },
    "BatchClassification": {
        "model": "mixer_cifar10",
        "version": "1",
        "results": [
            {"filename": "cat.jpg", "predictions": PREDICTIONS_EXAMPLE},
            {
                "filename": "notes.txt",
                "error": UnsupportedType("the bytes begin like no image").document(),
            },
        ],
    },
    "Models": {"default": "mixer_cifar10", "models": [MODEL_EXAMPLE]},
    "Model": {**MODEL_EXAMPLE, "labels": ["airplane", "automobile"]},
    "Status": {"status": "ready"},
}

PARAMETERS: list[Fragment] = [
    {
        "name": "model",
        "in": "query",
        "schema": TEXT,
        "description": "Name of the model; the server's default if absent. GET /models lists them.",
    },
    {
        "name": "top_k",
        "in": "query",
        "schema": COUNT,
        "description": "How many classes to answer with, 1 to all; 5 if absent (all if fewer).",
    },
    {
        "name": "X-Request-Timeout",
        "in": "header",
        "schema": {"type": "number", "exclusiveMinimum": 0},
        "description": "Seconds after which the answer is of no use any more; the server's default "
        "if absent, at most its maximum. A request that cannot be answered in time gets 429 at "
        "once, one that was not answered in time 504.",
    },
]
BINARY: Fragment = {"schema": {"type": "string", "format": "binary"}}
IMAGE_BODY: Fragment = {
    "required": True,
    "content": {
        "image/*": BINARY,
        "application/octet-stream": BINARY,
        "multipart/form-data": {"schema": _object(image=BINARY["schema"])},
    },
}
BATCH_BODY: Fragment = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _object(image=_list_of(BINARY["schema"]))},
    },
}

SECURITY_SCHEMES: Fragment = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
# The empty one: a server without --keys-file asks for no key.
SECURITY: list[Fragment] = [{"bearer": []}, {"header": []}, {}]

PROMETHEUS: Fragment = {
    "description": "Prometheus' text format",
    "content": {"text/plain": {"schema": TEXT, "example": "mixer_requests_in_flight 0.0\n"}},
}

SERVING: tuple[type[Problem], ...] = (ContractBroken, TritonAway, ModelNotReady, DeadlinePassed)
READINESS: tuple[type[Problem], ...] = (*SERVING, Draining)
CLASSIFY: tuple[type[Problem], ...] = (
    NoImage,
    Unauthorized,
    UnknownModel,
    BodyTooLarge,
    TooManyPixels,
    UnsupportedType,
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


def responses(schema: str, *problems: type[Problem]) -> dict[int | str, Fragment]:
    """The `responses` of an operation: 200 with `schema`, and the statuses of `problems`.

    Those of `EVERYWHERE` are added.
    """
    ok: Fragment = {"schema": _ref(schema), "example": EXAMPLES[schema]}
    answers: dict[int | str, Fragment] = {
        200: {"description": "OK", "headers": HEADERS, "content": {"application/json": ok}}
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
                    "schema": _ref("Problem"),
                    "examples": {c.name: {"value": _example(c)} for c in classes},
                }
            },
        }
        if any(c.retry_after is not None for c in classes):
            answers[status]["headers"] = HEADERS | {
                "Retry-After": {"schema": COUNT, "description": "Seconds to wait."}
            }
    return answers


def _example(problem: type[Problem]) -> Fragment:
    detail = (problem.__doc__ or "").splitlines()[0]
    return {**problem(detail).document(), "request_id": "6f1c2b7e5d3a4c4f9b1e8a7d2c3f4e5a"}
