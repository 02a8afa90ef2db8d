"""What the command line of tritonserver closes, seen from outside on a real one."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from server.local_triton.command_line import Key, Listen, command_line
from server.local_triton.supervisor import LocalTriton
from tests.server.local_triton.harm import infer
from tests.stack import DEFAULT_MODEL


def test_answers_on_loopback_alone(triton: LocalTriton) -> None:
    assert infer(triton.grpc_url) is not None
    for port in (triton.grpc_port, triton.metrics_port):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(ConnectionRefusedError):  # every address of 127/8 reaches 0.0.0.0
            socket.create_connection(("127.0.0.2", port), timeout=5)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.register_system_shared_memory("region", "/region", 1024),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.update_log_settings({"log_verbose_level": 9}),
        lambda client: client.update_trace_settings(settings={"trace_level": ["TENSORS"]}),
        lambda client: client.load_model(DEFAULT_MODEL),
        lambda client: client.unload_model(DEFAULT_MODEL),
    ],
    ids=["register", "shared_memory", "logging", "trace", "load", "unload"],
)
def test_closes_the_interfaces_that_nobody_needs(
    triton: LocalTriton, call: Callable[[Any], object]
) -> None:
    with (
        triton_grpc.InferenceServerClient(triton.grpc_url) as client,
        pytest.raises(InferenceServerException, match=r"restricted|expecting header|not allowed"),
    ):
        call(client)


def flags_of(key: Key, more: list[str] | None = None) -> list[str]:
    listen = Listen(1, 2, 3, "192.0.2.1")
    return command_line(
        "tritonserver", Path("/models"), listen, key, exit_timeout_s=5, more=more or []
    )


def test_http_is_on_loopback_whatever_the_address_of_grpc_is() -> None:
    flags = flags_of(Key(), more=["--x"])
    assert "--http-address=127.0.0.1" in flags
    assert "--grpc-address=192.0.2.1" in flags
    assert flags[-1] == "--x"


def test_every_start_has_another_key() -> None:
    keys = Key(), Key()
    assert keys[0] != keys[1]
    for key in keys:
        closed = [flag for flag in flags_of(key) if key.secret in flag]
        assert [flag.partition("=")[0] for flag in closed] == [
            "--http-restricted-api",
            "--grpc-restricted-protocol",
        ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/health/live"),
        ("GET", "/v2"),
        ("GET", "/v2/models/linear"),
        ("GET", "/v2/models/linear/config"),
        ("GET", "/v2/models/linear/stats"),
        ("POST", "/v2/models/linear/infer"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/linear/unload"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("GET", "/v2/trace/setting"),
        ("GET", "/v2/logging"),
    ],
)
def test_http_needs_a_key(triton: LocalTriton, method: str, path: str) -> None:
    url = f"http://127.0.0.1:{triton.http_port}{path}"
    answer = httpx.request(method, url, content=b"{}", trust_env=False)
    assert answer.status_code == 403, answer.text
    assert "restricted" in answer.text
