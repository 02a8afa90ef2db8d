"""What the command line of tritonserver closes, seen from outside on a real one."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from server.local_triton.command_line import Listen, command_line
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


def test_without_http_nothing_of_it_is_listed() -> None:
    flags = command_line("tritonserver", Path("/models"), Listen(1, 2), exit_timeout_s=5)
    assert "--allow-http=false" in flags
    assert not [flag for flag in flags if flag.startswith("--http-")]


def test_http_is_on_loopback_whatever_the_address_of_grpc_is() -> None:
    listen = Listen(1, 2, 3, "192.0.2.1")
    flags = command_line("tritonserver", Path("/models"), listen, exit_timeout_s=5, more=["--x"])
    assert "--http-address=127.0.0.1" in flags
    assert "--grpc-address=192.0.2.1" in flags
    assert flags[-1] == "--x"
    keys = {flag.rpartition("=")[2] for flag in flags if "closed=" in flag}
    assert len(keys) == 1
    assert len(keys.pop()) == 32


def test_every_start_has_another_key() -> None:
    one, other = (
        command_line("tritonserver", Path("/models"), Listen(1, 2), exit_timeout_s=5)
        for _ in range(2)
    )
    assert one != other
