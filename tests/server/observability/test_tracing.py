"""Traces of a real gateway, sent to a collector that this test is."""

import queue
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from server.local_triton.supervisor import LocalTriton
from server.observability import tracing
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, running_gateway

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "TRUE"}, False),
    ],
)
def test_only_the_standard_variables_ask(environment: dict[str, str], wanted: bool) -> None:
    assert tracing.wanted(environment) is wanted


def test_a_request_and_its_call_are_spans_of_the_clients_trace(
    triton: LocalTriton, tmp_path: Path
) -> None:
    spans: queue.Queue[Span] = queue.Queue()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers.get("Content-Encoding") is None
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        spans.put(span)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            with running_gateway(
                tmp_path / "log",
                *("--triton-url", triton.grpc_url, "--default-model", DEFAULT_MODEL),
                environment={
                    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
                    "OTEL_BSP_SCHEDULE_DELAY": "100",
                    "NO_PROXY": "127.0.0.1",
                },
            ) as gateway:
                response = httpx.post(
                    f"{gateway.url}/classify",
                    content=photo(0),
                    headers={"traceparent": f"00-{TRACE}-{PARENT}-01"},
                    trust_env=False,
                    timeout=30,
                )
                assert response.status_code == 200
                found: dict[str, Span] = {}
                while not {"POST /classify", "ModelInfer"} <= set(found):
                    span = spans.get(timeout=30)
                    if span.trace_id.hex() == TRACE:
                        found[span.name] = span
        finally:
            collector.shutdown()
            thread.join()
    request, call = found["POST /classify"], found["ModelInfer"]
    assert request.parent_span_id.hex() == PARENT
    assert call.parent_span_id == request.span_id
    attributes = {pair.key: pair.value for pair in request.attributes}
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["mixer.model"].string_value == DEFAULT_MODEL
    assert attributes["mixer.request_id"].string_value == response.headers["x-request-id"]
    assert attributes["mixer.inference_seconds"].double_value > 0
    assert request.start_time_unix_nano < call.start_time_unix_nano
    assert call.end_time_unix_nano < request.end_time_unix_nano
