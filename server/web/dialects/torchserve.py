"""TorchServe's inference API: /predictions/{model}, /ping.

In: a raw image, or a form with the field `data` or `body`. Out: one object, label to probability,
best first. As `curl -T` and `requests` use it; where TorchServe answers 503 to a bad image, the
status is this server's own.
"""

import re
from typing import Any

from fastapi import APIRouter, Request, Response

from server.problems import BadBody, Problem
from server.serving.buffers import Hold
from server.serving.classify import Image
from server.serving.predictions import best
from server.web.dialects.dialect import (
    IMAGE,
    Dialect,
    Name,
    Version,
    documented,
    json_response,
    model_of,
)
from server.web.dialects.images import raw_or_json
from server.web.job import Job
from server.web.openapi import form
from server.web.parameters import Timeout

router = APIRouter(tags=["TorchServe"])
FIELDS = ("data", "body")
DATA_FORM = form({"type": "string", "format": "binary"}, "data")
TYPES = {
    "unknown-model": "ModelNotFoundException",
    "not-found": "ResourceNotFoundException",
    "method-not-allowed": "MethodNotAllowedException",
    "too-busy": "ServiceUnavailableException",
    "internal-error": "InternalServerException",
}


async def predict(request: Request, name: Name, patience: Timeout = None) -> Response:
    """The best classes of one image."""
    return await _predict(request, name, None, patience)


async def predict_version(
    request: Request, name: Name, version: Version, patience: Timeout = None
) -> Response:
    """The best classes of one image, by a version of the model."""
    return await _predict(request, name, version, patience)


async def _predict(
    request: Request, name: str, version: str | None, patience: float | None
) -> Response:
    model = model_of(request, name, version)
    job = Job(request, model, model.top_k(None), patience)

    async def read(hold: Hold) -> Image:
        given = await raw_or_json(request, hold, FIELDS)
        if not isinstance(given, bytes):
            raise BadBody("send the image as the body, or as the field 'data' of a form")
        return given

    row, _ = await job.one(read)
    answer: dict[str, float] = {}
    for each in best(model, row, job.top_k):
        answer.setdefault(each.label, each.probability)  # the better of two classes with one label
    return json_response(answer, indent=2)


for method in ("POST", "PUT"):
    documentation = documented(IMAGE | DATA_FORM)
    router.add_api_route(
        "/predictions/{name}",
        predict,
        methods=[method],
        summary="Classify one image",
        operation_id=f"torchserve_{method}",
        **documentation,
    )
    router.add_api_route(
        "/predictions/{name}/{version}",
        predict_version,
        methods=[method],
        summary="Classify one image with a version of a model",
        operation_id=f"torchserve_version_{method}",
        **documentation,
    )


def error(problem: Problem, _request_id: str) -> dict[str, Any]:
    """As its frontend answers."""
    kind = TYPES.get(problem.name, "BadRequestException" if problem.status < 500 else None)
    return {
        "code": int(problem.status),
        "type": kind or "ServiceUnavailableException",
        "message": problem.detail,
    }


DIALECT = Dialect("torchserve", router, re.compile("/predictions(/|$)"), error=error)
