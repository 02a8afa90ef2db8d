"""TensorFlow Serving's REST API, which KServe v1 and Vertex AI share: /v1/models/{model}:predict.

In: `{"instances": [...]}` or `{"inputs": ...}`, each an image (`images.from_instance`). Out:
`{"predictions": [...]}` or `{"outputs": [...]}`, a list of probabilities for each. Vertex AI asks
at the routes that its variables `AIP_PREDICT_ROUTE` and `AIP_HEALTH_ROUTE` name.
"""

import os
import re
from typing import Any

from fastapi import APIRouter, Request, Response

from server.engines.model import Model
from server.problems import BadBody
from server.serving.buffers import Hold
from server.serving.classify import Image
from server.web.dialects.dialect import (
    OBJECT,
    Dialect,
    Name,
    Version,
    documented,
    json_response,
    model_of,
)
from server.web.dialects.images import from_instance, raw_or_json
from server.web.job import Job
from server.web.parameters import Timeout
from server.web.state import state_of

router = APIRouter(tags=["TensorFlow Serving, KServe v1, Vertex AI"])
LATEST = "0"  # a version, as ovmsclient asks for it


@router.get("/v1/models", summary="The models", **documented())
async def models(request: Request) -> Response:
    """For KServe and for the clients of OpenAI in one."""
    names = [entry.name for entry in state_of(request).models.entries()]
    data = [{"id": name, "object": "model"} for name in names]
    return json_response({"object": "list", "data": data, "models": names})


@router.post("/v1/models/{name}:predict", summary="Classify instances", **documented(OBJECT))
async def predict(request: Request, name: Name, patience: Timeout = None) -> Response:
    """With a model."""
    return await _predict(request, model_of(request, name), patience)


@router.post(
    "/v1/models/{name}/versions/{version}:predict",
    summary="Classify instances with a version of a model",
    **documented(OBJECT),
)
async def predict_version(
    request: Request, name: Name, version: Version, patience: Timeout = None
) -> Response:
    """With a version of a model; 0 is the latest."""
    wanted = None if version == LATEST else version
    return await _predict(request, model_of(request, name, wanted), patience)


@router.get("/v1/models/{name}", summary="Whether a model is ready", **documented())
async def status(request: Request, name: Name) -> Response:
    """Of TensorFlow Serving, KServe and OpenAI in one."""
    return json_response(_status(model_of(request, name)))


@router.get(
    "/v1/models/{name}/versions/{version}",
    summary="Whether a version of a model is ready",
    **documented(),
)
async def status_version(request: Request, name: Name, version: Version) -> Response:
    """The same of a version."""
    return json_response(_status(model_of(request, name, version)))


def _status(model: Model) -> dict[str, Any]:
    state = {
        "version": model.version,
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    return {
        "name": model.name,
        "ready": True,
        "id": model.name,
        "object": "model",
        "model_version_status": [state],
    }


async def _predict(request: Request, model: Model, patience: float | None) -> Response:
    job = Job(request, model, model.top_k(None), patience)
    answer = "predictions"

    async def read(hold: Hold) -> list[Image]:
        nonlocal answer
        given = await raw_or_json(request, hold)
        if isinstance(given, bytes):
            raise BadBody('the body is JSON: {"instances": [{"b64": BASE64}]}')
        if ("instances" in given) is ("inputs" in given):
            raise BadBody("the JSON has either 'instances' or 'inputs'")
        images = given.get("instances")
        if images is None:
            answer, images = "outputs", given["inputs"]
            if isinstance(images, dict) and len(images) == 1 and "b64" not in images:
                (images,) = images.values()
            images = images if isinstance(images, list) else [images]
        if not isinstance(images, list) or not images:
            raise BadBody("'instances' is a list with at least one image")
        return [from_instance(each, model) for each in images]

    rows, _ = await job.all(read)
    return json_response({answer: [row.astype(float).tolist() for row in rows]})


# Vertex AI names its routes, which may be equal, in the environment of the container.
VERTEX_PREDICT = os.environ.get("AIP_PREDICT_ROUTE", "")
VERTEX_HEALTH = os.environ.get("AIP_HEALTH_ROUTE", "")


async def vertex_predict(request: Request, patience: Timeout = None) -> Response:
    """With the default model."""
    return await _predict(request, model_of(request, None), patience)


async def vertex_health(request: Request) -> Response:
    """Whether every model answers."""
    await state_of(request).check_ready()
    return json_response({"status": "ready"})


if VERTEX_PREDICT.startswith("/"):
    router.post(VERTEX_PREDICT, **documented(OBJECT))(vertex_predict)
if VERTEX_HEALTH.startswith("/"):
    router.get(VERTEX_HEALTH, **documented())(vertex_health)

_routes = [re.escape(route) for route in (VERTEX_PREDICT, VERTEX_HEALTH) if route]
DIALECT = Dialect(
    "tfserving",
    router,
    re.compile("|".join(["/v1/models(/|$)", *(f"{route}$" for route in _routes)])),
    frozenset({VERTEX_HEALTH} - {""}),
)
