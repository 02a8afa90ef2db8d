"""The HTTP face of the gateway: paths, parameters, answers.

In: `Settings` and the address of a Triton. Out: an ASGI app that classifies pictures, with its
OpenAPI document at /openapi.json and a page to try it at /docs.
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from server import __version__, metrics, openapi, tracing
from server.bodies import Bodies, read_image, read_images
from server.classify import Classifier
from server.contract import Model
from server.deadlines import seconds_for, while_connected
from server.keys import KeyFile, RequireKey
from server.middleware import Envelope, Timings
from server.models import Entry, Models
from server.page import page
from server.problems import (
    BadParameter,
    BodyTooLarge,
    Draining,
    MethodNotAllowed,
    NotFound,
    Problem,
    Unauthorized,
    UnknownModel,
)
from server.readiness import Readiness
from server.settings import Settings
from server.telemetry import Telemetry, refused
from server.triton import TritonClient

WHOLE_NUMBER = re.compile("-?[0-9]{1,9}")
DESCRIPTION = "Image classification by MLP-Mixer, ViT and BiT models on NVIDIA Triton."


class PlainRoute(APIRoute):
    """A route whose endpoint takes the request and returns the response, with nothing between.

    FastAPI's own handler resolves dependencies and validates, which the endpoints do not use and
    which costs more than all the rest of a route.
    """

    def get_route_handler(self) -> Callable[[Request], Any]:
        return self.endpoint


def create_app(settings: Settings, triton_url: str) -> FastAPI:
    """The app; it connects to Triton when it starts and answers 503 until Triton does."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        metrics.start()
        tracing.start(__version__)
        triton = TritonClient(triton_url)
        models = Models(triton, settings.default_model)
        app.state.models = models
        app.state.readiness = Readiness(models)
        app.state.classifier = Classifier(settings, models)
        watch = asyncio.create_task(models.watch())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            app.state.classifier.close()
            await triton.close(settings.longest_request)
            await tracing.stop()

    app = FastAPI(
        title="Mixer Serving", version=__version__, description=DESCRIPTION, lifespan=lifespan
    )
    app.state.settings = settings
    app.state.bodies = Bodies(
        settings.max_body_bytes, settings.max_buffered_bytes, settings.read_timeout
    )
    app.state.draining = False  # server/gateway.py sets it
    app.router.route_class = PlainRoute
    # From the inside to the outside.
    if settings.keys_file is not None:
        app.add_middleware(RequireKey, keys=KeyFile(settings.keys_file))
    app.add_middleware(Envelope)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "X-API-Key",
                "X-Request-ID",
                "X-Request-Timeout",
            ],
            expose_headers=["Retry-After", "Server-Timing", "X-Request-ID"],
        )
    app.add_middleware(Telemetry, log=settings.access_log)
    if tracing.wanted():
        app.add_middleware(tracing.Tracing)
    app.add_exception_handler(HTTPException, _raise_as_problem)
    _add_routes(app)

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = get_openapi(
                title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes
            )
            app.openapi_schema["components"] = {
                "schemas": openapi.SCHEMAS,
                "securitySchemes": openapi.SECURITY_SCHEMES,
            }
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way to extend it
    return app


def _add_routes(app: FastAPI) -> None:
    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route(
        "/classify",
        classify,
        methods=["POST"],
        summary="Classify one picture",
        responses=openapi.responses("Classification", *openapi.CLASSIFY),
        openapi_extra={
            "parameters": openapi.PARAMETERS,
            "requestBody": openapi.IMAGE_BODY,
            "security": openapi.SECURITY,
        },
    )
    app.add_api_route(
        "/classify/batch",
        classify_batch,
        methods=["POST"],
        summary="Classify several pictures; one bad picture does not spoil the others",
        responses=openapi.responses("BatchClassification", *openapi.CLASSIFY),
        openapi_extra={
            "parameters": openapi.PARAMETERS,
            "requestBody": openapi.BATCH_BODY,
            "security": openapi.SECURITY,
        },
    )
    app.add_api_route(
        "/models",
        list_models,
        summary="The models that Triton serves",
        responses=openapi.responses("Models", Unauthorized, *openapi.SERVING),
        openapi_extra={"security": openapi.SECURITY},
    )
    name: openapi.Fragment = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": openapi.TEXT,
    }
    app.add_api_route(
        "/models/{name}",
        show_model,
        summary="One model: input size, labels, version, provenance, state",
        responses=openapi.responses("Model", Unauthorized, UnknownModel, *openapi.SERVING),
        openapi_extra={"parameters": [name], "security": openapi.SECURITY},
    )
    app.add_api_route(
        "/livez",
        live,
        summary="Whether the gateway runs, whatever Triton does",
        responses=openapi.responses("Status"),
    )
    app.add_api_route(
        "/metrics",
        prometheus,
        summary="Counts and times for Prometheus",
        response_class=Response,
        responses={200: openapi.PROMETHEUS},
    )
    for path in ("/readyz", "/healthz"):
        app.add_api_route(
            path,
            ready,
            summary="Whether every model answers a real inference as it did when loaded",
            responses=openapi.responses("Status", *openapi.READINESS),
        )


async def classify(request: Request) -> Response:
    """POST /classify."""
    settings, classifier, timings = _context(request)
    model, top_k = _parameters(request)
    timings.model = model.name
    seconds = seconds_for(request, settings)
    with request.app.state.bodies.hold() as hold:
        began = time.perf_counter()
        data = await read_image(request, hold)
        timings.read = time.perf_counter() - began
        metrics.image_bytes.observe(len(data))
        async with while_connected(request):
            predictions, version = await classifier.one(data, model, top_k, seconds, timings)
    return _json({"model": model.name, "version": version, "predictions": predictions})


async def classify_batch(request: Request) -> Response:
    """POST /classify/batch."""
    settings, classifier, timings = _context(request)
    model, top_k = _parameters(request)
    timings.model = model.name
    seconds = seconds_for(request, settings)
    with request.app.state.bodies.hold() as hold:
        began = time.perf_counter()
        uploads = await read_images(request, hold)
        timings.read = time.perf_counter() - began
        for upload in uploads:
            metrics.image_bytes.observe(len(upload.data))
        if len(uploads) > settings.max_batch_images:
            raise BodyTooLarge(
                f"the form has {len(uploads)} pictures, "
                f"at most {settings.max_batch_images} are accepted"
            )
        async with while_connected(request):
            answers, version = await classifier.many(uploads, model, top_k, seconds, timings)
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
    models: Models = request.app.state.models
    entries = [_summary(models, entry) for entry in models.entries()]
    return _json({"default": models.default, "models": entries})


async def show_model(request: Request) -> Response:
    """GET /models/{name}."""
    models: Models = request.app.state.models
    entry = models.entry(request.path_params["name"])
    summary = _summary(models, entry)
    if isinstance(entry, Model):
        summary["labels"] = entry.labels
    return _json(summary)


async def prometheus(request: Request) -> Response:
    """GET /metrics."""
    models: Models = request.app.state.models
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


def _parameters(request: Request) -> tuple[Model, int]:
    """The model and top_k that the query asks for. Raises `BadParameter`, or as `Models.get`."""
    models: Models = request.app.state.models
    if not request.scope["query_string"]:
        model = models.get(models.default)
        return model, model.top_k(None)
    asked: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in {"model", "top_k"}:
            raise BadParameter(f"there is no parameter {name!r}; there are: model, top_k")
        if name in asked:
            raise BadParameter(f"{name} is given twice, once is expected")
        asked[name] = value
    top_k = asked.get("top_k")
    if top_k is not None and not WHOLE_NUMBER.fullmatch(top_k):
        raise BadParameter(f"top_k is {top_k[:20]!r}, expected a whole number from 1")
    model = models.get(asked.get("model", models.default))
    return model, model.top_k(None if top_k is None else int(top_k))


def _summary(models: Models, entry: Entry) -> dict[str, object]:
    return {**entry.summary(), "default": entry.name == models.default}


def _json(content: object) -> Response:
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, media_type="application/json")


async def _raise_as_problem(request: Request, error: Exception) -> Response:
    """Turn the errors of Starlette's router into problems; `Envelope` answers them."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        raise MethodNotAllowed(f"{request.method} {request.url.path}: allowed is {allow}", allow)
    raise NotFound(f"there is no {request.url.path}; /docs lists every path")
