"""OpenTelemetry traces, when the standard `OTEL_…` variables ask for them.

In: the client's `traceparent` (W3C Trace Context), each request, each call to Triton. Out: a span
for the request with the times of its stages, one for the call that carried its image, sent to
the collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names; and the context in the metadata of that
call, for Triton's own spans. Without those variables no SDK is loaded.
"""

import asyncio
import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.observability.timings import STAGES

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PATIENCE_S = 5.0  # wait at the end for a collector that does not answer


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the variables ask for traces (OpenTelemetry specification, SDK configuration)."""
    return (
        any(environment.get(name) for name in ENDPOINTS)
        and environment.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
        and environment.get("OTEL_SDK_DISABLED", "").lower() != "true"
    )


INSTALLED = importlib.util.find_spec("opentelemetry") is not None and (
    importlib.util.find_spec("opentelemetry.exporter") is not None
)
if TYPE_CHECKING or (wanted() and INSTALLED):
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.propagate import extract, inject
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import SpanKind, StatusCode, Tracer


class _Tracing:
    """The process's tracer, set by `start` if traces are wanted."""

    provider: "TracerProvider | None" = None
    tracer: "Tracer | None" = None


def start(version: str) -> None:
    """Get ready to send traces, if they are wanted."""
    if not wanted():
        return
    if not INSTALLED:
        logger.warning(
            "the OTEL_ variables ask for traces, whose packages are not installed: "
            "pip install -r requirements/tracing.txt"
        )
        return

    attributes = {"service.version": version}
    if "OTEL_SERVICE_NAME" not in os.environ:
        attributes["service.name"] = "mixer-gateway"
    _Tracing.provider = TracerProvider(resource=Resource.create(attributes))
    _Tracing.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _Tracing.tracer = _Tracing.provider.get_tracer("mixer-gateway", version)


async def stop() -> None:
    """Send what has not been sent yet."""
    if _Tracing.provider is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.to_thread(_Tracing.provider.shutdown)


def metadata() -> tuple[tuple[str, str], ...] | None:
    """The current span's context as gRPC metadata; None without one."""
    if _Tracing.tracer is None:
        return None

    carrier: dict[str, str] = {}
    inject(carrier)
    return tuple(carrier.items()) or None


@contextlib.contextmanager
def call(model: str, images: int) -> Iterator[None]:
    """The span of one call to Triton; its parent is the request of its first image."""
    if _Tracing.tracer is None:
        yield
        return

    attributes: dict[str, str | int] = {"mixer.model": model, "mixer.images": images}
    with _Tracing.tracer.start_as_current_span(
        "ModelInfer", kind=SpanKind.CLIENT, attributes=attributes
    ):
        yield


class Tracing:
    """ASGI middleware: one span around each request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, inside its span."""
        if scope["type"] != "http" or _Tracing.tracer is None:
            await self.app(scope, receive, send)
            return

        carrier = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        with _Tracing.tracer.start_as_current_span(
            scope["method"], context=extract(carrier), kind=SpanKind.SERVER
        ) as span:

            async def send_and_note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            try:
                await self.app(scope, receive, send_and_note)
            finally:
                # The name is the route's pattern, not the path: a client must not be able to invent
                # names.
                route = getattr(scope.get("route"), "path", None)
                span.update_name(f"{scope['method']} {route}" if route else scope["method"])
                span.set_attribute("http.request.method", scope["method"])
                if route is not None:
                    span.set_attribute("http.route", route)
                timings = scope["state"].get("timings")
                if timings is not None:
                    span.set_attribute("mixer.request_id", timings.request_id)
                    span.set_attribute("mixer.model", timings.model)
                    for stage in STAGES:
                        seconds = getattr(timings, stage)
                        if seconds is not None:
                            span.set_attribute(f"mixer.{stage}_seconds", seconds)
