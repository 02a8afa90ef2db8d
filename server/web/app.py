"""The app: the parts of the gateway, and the middleware around its endpoints.

In: `Settings` and the addresses of Triton. Out: an ASGI app that classifies images, with its
OpenAPI document at /openapi.json and a page to try it at /docs.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NoReturn

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from server import __version__
from server.engines.engine import Engine
from server.engines.triton.balancer import Balancer
from server.observability import metrics, tracing
from server.observability.telemetry import Telemetry
from server.problems import MethodNotAllowed, NotFound
from server.serving.buffers import Buffers
from server.serving.classify import Classifier
from server.serving.readiness import Readiness
from server.serving.shadow import Aim, Shadow
from server.settings import Settings
from server.web import embed, endpoints, pages, places, shadow
from server.web.api_keys import KeyFile, RequireKey
from server.web.clients import Clients
from server.web.default_model import DefaultModel, DefaultModelError
from server.web.dialects import chosen
from server.web.dialects.dialect import Dialect
from server.web.middleware import Envelope
from server.web.paced import Paced
from server.web.parameters import problem_of
from server.web.state import State, put_state, state_of

DESCRIPTION = "Image classification by MLP-Mixer, ViT and BiT models on NVIDIA Triton."


def create_app(settings: Settings, triton_url: str) -> FastAPI:
    """The app; it connects to Triton when it starts and answers 503 until Triton does."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        metrics.start()
        tracing.start(__version__)
        models = _engine(settings, triton_url)
        if default is not None:
            with contextlib.suppress(DefaultModelError):  # `watch` logs it
                models.default = default.name()
        state.models = models
        state.classifier = Classifier(settings, models)
        if settings.shadow_aim is not None:
            aim = Aim(*settings.shadow_aim, former=settings.default_model)
            longest = settings.request_timeout
            state.shadow = Shadow(state.classifier, aim, longest, shadow.keep)
        state.readiness = Readiness(
            models,
            state.classifier.decoding,
            lambda: None if state.shadow is None else state.shadow.other,
        )
        state.metrics = Paced(lambda: metrics.render(models.average_batch))
        tasks = [
            asyncio.create_task(models.watch()),
            asyncio.create_task(state.classifier.decoding.watch()),
        ]
        if keys is not None:
            tasks.append(asyncio.create_task(keys.watch()))
        if default is not None:
            tasks.append(asyncio.create_task(default.watch(models)))
        if state.shadow is not None:
            tasks.append(asyncio.create_task(state.shadow.run()))
            tasks.append(asyncio.create_task(state.shadow.check()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await state.classifier.close()
            await models.close(settings.longest_request)
            await tracing.stop()

    app = FastAPI(
        title="Mixer Serving",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect would go to whatever Host says
        # server/web/pages.py serves these.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    file = settings.default_model_file
    default = None if file is None else DefaultModel(file, settings.default_model)
    keys = None if settings.keys_file is None else KeyFile(settings.keys_file)
    buffers = Buffers(settings.max_body_bytes, settings.max_buffered_bytes, settings.read_timeout)
    state = State(settings, buffers, keys, Clients(settings.trusted_proxies))
    dialects = chosen(settings.dialects)
    put_state(app, state)
    app.include_router(endpoints.router)
    app.include_router(embed.router)
    app.include_router(shadow.router)
    for dialect in dialects:
        app.include_router(dialect.router)
    app.include_router(pages.router)
    _add_middleware(app, dialects)
    app.add_exception_handler(HTTPException, _raise_as_problem)
    app.add_exception_handler(RequestValidationError, _raise_as_problem)
    return app


def _add_middleware(app: FastAPI, dialects: list[Dialect]) -> None:
    """Add the middleware, the innermost first."""
    state = state_of(app)
    settings = state.settings
    if state.keys is not None:
        more = frozenset().union(*(dialect.open for dialect in dialects))
        app.add_middleware(RequireKey, keys=state.keys, also_open=more)
    if places.moved(settings):
        app.add_middleware(places.Places, state=state)
    app.add_middleware(Envelope, dialects=dialects)
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


def _engine(settings: Settings, triton_url: str) -> Engine:
    if settings.engine == "onnxruntime":
        # Its package is installed only if this engine is wanted.
        from server.engines.onnxruntime.engine import OnnxRuntime  # noqa: PLC0415 - see above

        return OnnxRuntime(settings.repository, settings.default_model)
    return Balancer(
        triton_url,
        settings.default_model,
        settings.longest_request,
        starts_here=settings.with_triton,
    )


async def _raise_as_problem(request: Request, error: Exception) -> NoReturn:
    """Turn the errors of Starlette and FastAPI into problems; `Envelope` answers them."""
    if isinstance(error, RequestValidationError):
        raise problem_of(error.errors())
    if isinstance(error, HTTPException) and error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "").replace("GET", "GET, HEAD")
        raise MethodNotAllowed(f"{request.method} {request.url.path}: allowed is {allow}", allow)
    hint = "; /docs lists every path" if state_of(request).settings.docs == "here" else ""
    raise NotFound(f"there is no {request.url.path}{hint}")
