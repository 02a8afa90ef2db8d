"""Amazon SageMaker's contract for containers: GET /ping, POST /invocations.

In: a raw image, or JSON with `inputs` (as Hugging Face's containers take it) or `instances` (as
TensorFlow's do). Out: the answer in the same form. The ping is that of TorchServe, too.
"""

import re

from fastapi import APIRouter, Request, Response

from server.problems import BadBody
from server.serving.buffers import Hold
from server.serving.classify import Image
from server.serving.predictions import best
from server.web.dialects.dialect import (
    IMAGE,
    OBJECT,
    Dialect,
    documented,
    json_response,
    model_of,
)
from server.web.dialects.huggingface import labels_and_scores
from server.web.dialects.images import from_instance, raw_or_json
from server.web.job import Job
from server.web.json_bodies import from_base64
from server.web.parameters import Timeout
from server.web.state import state_of

router = APIRouter(tags=["SageMaker"])
TARGET = "X-Amzn-SageMaker-Target-Model"


async def ping(request: Request) -> Response:
    """Healthy, or the problem that a request would get."""
    await state_of(request).check_ready()
    return json_response({"status": "Healthy"})


for method in ("GET", "POST"):  # TorchServe's takes both
    router.add_api_route(
        "/ping",
        ping,
        methods=[method],
        summary="Whether every model answers",
        operation_id=f"ping_{method}",
        **documented(),
    )


@router.post(
    "/invocations",
    summary="Classify one image, or several as instances",
    **documented(IMAGE | OBJECT),
)
async def invocations(request: Request, patience: Timeout = None) -> Response:
    """With the model that `X-Amzn-SageMaker-Target-Model` names, or the default one."""
    model = model_of(request, request.headers.get(TARGET))
    job = Job(request, model, model.top_k(None), patience)
    several = False

    async def read(hold: Hold) -> list[Image]:
        nonlocal several
        given = await raw_or_json(request, hold)
        if isinstance(given, bytes):
            return [given]
        if "inputs" in given:
            return [from_base64(given["inputs"])]
        instances = given.get("instances")
        if not isinstance(instances, list) or not instances:
            raise BadBody("the JSON has neither 'inputs' nor a list of 'instances'")
        several = True
        return [from_instance(each, model) for each in instances]

    rows, _ = await job.all(read)
    if several:
        return json_response({"predictions": [row.astype(float).tolist() for row in rows]})
    return json_response(labels_and_scores(best(model, rows[0], job.top_k)))


DIALECT = Dialect("sagemaker", router, re.compile("/(ping|invocations)$"), frozenset({"/ping"}))
