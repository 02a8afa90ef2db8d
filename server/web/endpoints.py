"""The endpoints: parameters in, answers out.

In: a request, with its `Timings` in its state. Out: its answer as JSON, or the `Problem` that
`Envelope` answers instead.
"""

import functools
import json
import re
import time

from fastapi import Request, Response
from starlette.datastructures import QueryParams

from server.engines.engine import Engine
from server.engines.model import Entry, Model
from server.observability import metrics
from server.observability.telemetry import refused
from server.observability.timings import Timings
from server.problems import (
    BadParameter,
    BodyTooLarge,
    Draining,
    Problem,
)
from server.serving.classify import Classifier
from server.settings import Settings
from server.web.bodies import read_image, read_images
from server.web.deadlines import seconds_for, while_connected

# Made once: `json.dumps` would make an encoder for every answer.
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
WHOLE_NUMBER = re.compile("-?[0-9]{1,9}")


async def classify(request: Request) -> Response:
    """POST /classify."""
    settings, classifier, timings = _context(request)
    model, top_k = parameters(request)
    timings.model = model.name
    seconds = seconds_for(request, settings)
    classifier.check(model, 1, seconds)
    with request.app.state.bodies.hold() as hold:
        began = time.perf_counter()
        data = await read_image(request, hold)
        timings.read = time.perf_counter() - began
        metrics.image_bytes.observe(len(data))
        with while_connected(request):
            predictions, version = await classifier.one(
                data, model, top_k, seconds, timings, hold=hold
            )
    return _json({"model": model.name, "version": version, "predictions": predictions})


async def classify_batch(request: Request) -> Response:
    """POST /classify/batch."""
    settings, classifier, timings = _context(request)
    model, top_k = parameters(request)
    timings.model = model.name
    seconds = seconds_for(request, settings)
    classifier.check(model, 1, seconds)
    with request.app.state.bodies.hold() as hold:
        began = time.perf_counter()
        uploads = await read_images(request, hold)
        timings.read = time.perf_counter() - began
        for upload in uploads:
            metrics.image_bytes.observe(len(upload.data))
        if len(uploads) > settings.max_batch_images:
            raise BodyTooLarge(
                f"the form has {len(uploads)} images, "
                f"at most {settings.max_batch_images} are accepted"
            )
        with while_connected(request):
            answers, version = await classifier.many(
                [upload.data for upload in uploads], model, top_k, seconds, timings, hold=hold
            )
    for answer in answers:
        if isinstance(answer, Problem):
            refused(answer)
    results = [
        {"filename": upload.filename, "error": answer.document()}
        if isinstance(answer, Problem)
        else {"filename": upload.filename, "predictions": answer}
        for upload, answer in zip(uploads, answers, strict=True)
    ]
    return _json({"model": model.name, "version": version, "results": results})


async def list_models(request: Request) -> Response:
    """GET /models."""
    models: Engine = request.app.state.models
    entries = [_summary(models, entry) for entry in models.entries()]
    return _json({"default": models.default, "models": entries})


async def show_model(request: Request) -> Response:
    """GET /models/{name}."""
    models: Engine = request.app.state.models
    entry = models.entry(request.path_params["name"])
    summary = _summary(models, entry)
    if isinstance(entry, Model):
        summary["labels"] = entry.labels
    return _json(summary)


async def prometheus(request: Request) -> Response:
    """GET /metrics."""
    models: Engine = request.app.state.models
    return Response(
        metrics.render(models.average_batch), headers={"content-type": metrics.CONTENT_TYPE_LATEST}
    )


async def live(_request: Request) -> Response:
    """GET /livez."""
    return _json({"status": "live"})


async def ready(request: Request) -> Response:
    """GET /readyz and /healthz."""
    if request.app.state.draining:
        raise Draining("this gateway is about to end; send new requests to another")
    model = await request.app.state.readiness.check()
    return _json({"status": "ready", "model": model.name, "version": model.version})


def _context(request: Request) -> tuple[Settings, Classifier, Timings]:
    state = request.app.state
    return state.settings, state.classifier, request.scope["state"]["timings"]


def parameters(request: Request) -> tuple[Model, int]:
    """The model and top_k that the query asks for. Raises `BadParameter`, or as `Engine.get`."""
    models: Engine = request.app.state.models
    name, top_k = _asked(request.scope["query_string"])
    model = models.get(models.default if name is None else name)
    return model, model.top_k(top_k)


@functools.lru_cache(maxsize=64)
def _asked(query: bytes) -> tuple[str | None, int | None]:
    """`model` and `top_k` of a query, None for what it lacks. Raises `BadParameter`."""
    asked: dict[str, str] = {}
    for name, value in QueryParams(query).multi_items():
        if name not in {"model", "top_k"}:
            raise BadParameter(f"there is no parameter {name!r}; there are: model, top_k")
        if name in asked:
            raise BadParameter(f"{name} is given twice, once is expected")
        asked[name] = value
    top_k = asked.get("top_k")
    if top_k is not None and not WHOLE_NUMBER.fullmatch(top_k):
        raise BadParameter(f"top_k is {top_k[:20]!r}, expected a whole number from 1")
    return asked.get("model"), None if top_k is None else int(top_k)


def _summary(models: Engine, entry: Entry) -> dict[str, object]:
    return {**entry.summary(), "default": entry.name == models.default}


def _json(content: object) -> Response:
    return Response(to_json(content).encode(), media_type="application/json")
