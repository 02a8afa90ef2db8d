"""Hugging Face's image classification, at /hf for the default model and at /hf/{model}.

In: a raw image, or `{"inputs": BASE64, "parameters": {"top_k", "function_to_apply"}}`. Out: a list
of `{"label", "score"}`, best first. As huggingface_hub and @huggingface/inference speak it.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from contracts.repository import LOGITS
from server.engines.model import Model, Probabilities
from server.problems import BadBody
from server.serving.buffers import Hold
from server.serving.classify import Image
from server.serving.predictions import Prediction, best
from server.web.dialects.dialect import (
    IMAGE,
    OBJECT,
    Dialect,
    Name,
    documented,
    json_response,
    model_of,
    whole,
)
from server.web.dialects.images import raw_or_json
from server.web.job import Job
from server.web.json_bodies import from_base64
from server.web.parameters import Timeout

router = APIRouter(tags=["Hugging Face"])
APPLY = "function_to_apply"


def _softmax(logits: Probabilities) -> Probabilities:
    powers = np.exp(logits - logits.max())
    shares: Probabilities = powers / powers.sum()
    return shares


def _sigmoid(logits: Probabilities) -> Probabilities:
    with np.errstate(over="ignore"):  # which gives 0
        shares = 1 / (1 + np.exp(-logits))
    return shares.astype(np.float32)


# The functions that make scores of logits, as in the pipeline of transformers.
FUNCTIONS: dict[str, Callable[[Probabilities], Probabilities]] = {
    "softmax": _softmax,
    "sigmoid": _sigmoid,
    "none": lambda logits: logits,
}


@router.post("/hf", summary="Classify with the default model", **documented(IMAGE | OBJECT))
async def default(request: Request, patience: Timeout = None) -> Response:
    """POST /hf."""
    return await classify(request, None, patience)


@router.post("/hf/{name}", summary="Classify with a model", **documented(IMAGE | OBJECT))
async def named(request: Request, name: Name, patience: Timeout = None) -> Response:
    """POST /hf/{name}."""
    return await classify(request, name, patience)


@router.get("/hf/health", summary="Whether the process runs", **documented())
async def health() -> Response:
    """For `InferenceClient.health_check`."""
    return json_response({"status": "ok"})


@router.get("/hf/{name}/health", summary="Whether a model is ready", **documented())
async def model_health(request: Request, name: Name) -> Response:
    """For `InferenceClient.health_check`."""
    model_of(request, name)
    return json_response({"status": "ok"})


async def classify(request: Request, name: str | None, patience: float | None) -> Response:
    """The list of labels and scores for one image."""
    model = model_of(request, name)
    job = Job(request, model, model.top_k(None), patience)
    make: Callable[[Probabilities], Probabilities] | None = None

    async def read(hold: Hold) -> Image:
        nonlocal make
        given = await raw_or_json(request, hold)
        if isinstance(given, bytes):
            kind = request.headers.get("content-type", "")
            # What @huggingface/inference makes of {inputs: BASE64}.
            return from_base64(given.decode("latin-1")) if kind.startswith("text/plain") else given
        if "inputs" not in given:
            raise BadBody("the JSON has no member 'inputs', which is the image in base64")
        top_k, function = _asked(given.get("parameters"), model)
        job.top_k = top_k or job.top_k
        if function is not None:
            job.extras = (LOGITS,)
            make = FUNCTIONS[function]
        return from_base64(given["inputs"])

    row, _ = await job.one(read)
    scores = row if make is None else make(model.split(row, job.extras)[LOGITS])
    return json_response(labels_and_scores(best(model, scores, job.top_k)))


def labels_and_scores(predictions: list[Prediction]) -> list[dict[str, Any]]:
    """As the pipeline of transformers answers."""
    return [{"label": each.label, "score": each.probability} for each in predictions]


def _asked(parameters: object, model: Model) -> tuple[int | None, str | None]:
    """How many classes, and which function makes scores of the logits; None: as the model does."""
    if parameters is None:
        return None, None
    if not isinstance(parameters, dict):
        raise BadBody("'parameters' is an object, such as {\"top_k\": 3}")
    if unknown := set(parameters) - {"top_k", APPLY}:
        raise BadBody(f"there is no parameter {min(unknown)[:40]!r}; there are: top_k, {APPLY}")
    apply = parameters.get(APPLY)
    if apply is not None and (not isinstance(apply, str) or apply.lower() not in FUNCTIONS):
        raise BadBody(f"{APPLY} is {str(apply)[:40]!r}, expected {', '.join(FUNCTIONS)}")
    function = None if apply is None else apply.lower()
    if function == model.parameters.get("activation", "softmax"):
        function = None  # the model's probabilities are made in this way
    if function is not None and LOGITS not in model.extras:
        raise BadBody(
            f"{APPLY} is {apply!r}, and model {model.name!r} gives no logits to apply it to"
        )
    given = parameters.get("top_k")
    # More classes than the model has means all of them, as in transformers.
    return None if given is None else min(whole(given, "top_k", 2**31), model.classes), function


DIALECT = Dialect("huggingface", router, re.compile("/hf(/|$)"), frozenset({"/hf/health"}))
