"""The app: what the gateway is made of, and which path leads to which endpoint.

In: `Settings` and the addresses of Triton. Out: an ASGI app that classifies images, with its
OpenAPI document at /openapi.json and a page to try it at /docs.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from server import __version__
from server.engines.triton.balancer import Balancer
from server.observability import metrics, tracing
from server.observability.telemetry import Telemetry
from server.problems import (
    MethodNotAllowed,
    NotFound,
    Unauthorized,
    UnknownModel,
)
from server.serving.buffers import Buffers
from server.serving.classify import Classifier
from server.serving.readiness import Readiness
from server.settings import Settings
from server.web import endpoints, openapi
from server.web.api_keys import KeyFile, RequireKey
from server.web.middleware import Envelope
from server.web.page import page

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
        models = Balancer(triton_url, settings.default_model, settings.longest_request)
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
            await models.close(settings.longest_request)
            await tracing.stop()

    app = FastAPI(
        title="Mixer Serving",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,  # it would redirect to whatever Host says
        redoc_url=None,  # one page of documentation is enough, and this one loads more from a CDN
    )
    app.state.settings = settings
    app.state.bodies = Buffers(
        settings.max_body_bytes, settings.max_buffered_bytes, settings.read_timeout
    )
    app.state.draining = False  # server/process/gateway.py sets it
    app.router.route_class = PlainRoute
    _add_routes(app)
    # From the inside to the outside.
    app.state.keys = None if settings.keys_file is None else KeyFile(settings.keys_file)
    if app.state.keys is not None:
        app.add_middleware(RequireKey, keys=app.state.keys)
    app.add_middleware(Envelope)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins.split(","),
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
        endpoints.classify,
        methods=["POST"],
        summary="Classify one image",
        responses=openapi.responses("Classification", *openapi.CLASSIFY),
        openapi_extra={
            "parameters": openapi.PARAMETERS,
            "requestBody": openapi.IMAGE_BODY,
            "security": openapi.SECURITY,
        },
    )
    app.add_api_route(
        "/classify/batch",
        endpoints.classify_batch,
        methods=["POST"],
        summary="Classify several images; one bad image does not spoil the others",
        responses=openapi.responses("BatchClassification", *openapi.CLASSIFY),
        openapi_extra={
            "parameters": openapi.PARAMETERS,
            "requestBody": openapi.BATCH_BODY,
            "security": openapi.SECURITY,
        },
    )
    app.add_api_route(
        "/models",
        endpoints.list_models,
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
        endpoints.show_model,
        summary="One model: input size, labels, version, provenance, state",
        responses=openapi.responses("Model", Unauthorized, UnknownModel, *openapi.SERVING),
        openapi_extra={"parameters": [name], "security": openapi.SECURITY},
    )
    app.add_api_route(
        "/livez",
        endpoints.live,
        summary="Whether the gateway runs, whatever Triton does",
        responses=openapi.responses("Status"),
    )
    app.add_api_route(
        "/metrics",
        endpoints.prometheus,
        summary="Counts and times for Prometheus",
        response_class=Response,
        responses={200: openapi.PROMETHEUS},
    )
    for path in ("/readyz", "/healthz"):
        app.add_api_route(
            path,
            endpoints.ready,
            summary="Whether every model answers a real inference as it did when loaded",
            responses=openapi.responses("Status", *openapi.READINESS),
        )


async def _raise_as_problem(request: Request, error: Exception) -> Response:
    """Turn the errors of Starlette's router into problems; `Envelope` answers them."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "").replace("GET", "GET, HEAD")
        raise MethodNotAllowed(f"{request.method} {request.url.path}: allowed is {allow}", allow)
    raise NotFound(f"there is no {request.url.path}; /docs lists every path")
