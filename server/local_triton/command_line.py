"""The command line of tritonserver, the wheel's or NVIDIA's, with as little open as both allow.

In: where tritonserver and the model repository are, where it shall listen, and flags that only one
of the two launchers needs. Out: the arguments. Imports only the standard library, since NVIDIA's
image has this module too.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Interfaces that are not needed, and that had security holes in several releases.
RISKY = ("shared-memory", "trace", "logging")
LOADING = ("model-repository",)  # this interface also lists models
ALL = ("health", "metadata", "inference", "model-config", *LOADING, "statistics", *RISKY)
HEADER = "supervisor"


@dataclass(frozen=True)
class Listen:
    """Where one tritonserver listens."""

    grpc_port: int
    metrics_port: int
    http_port: int  # always on loopback alone
    address: str = LOOPBACK  # of gRPC and metrics


@dataclass(frozen=True)
class Key:
    """The header that a request needs for a closed interface; only the launcher knows its value.

    Everybody who may read this machine's process list can read the key, too, since Triton takes it
    only from its command line.
    """

    secret: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def http_headers(self) -> dict[str, str]:
        """The header of an HTTP request that may use everything."""
        return {HEADER: self.secret}

    def closes(self, interfaces: Iterable[str]) -> str:
        """The value of a flag that closes these interfaces to all others."""
        return f"{','.join(interfaces)}:{HEADER}={self.secret}"


def command_line(
    binary: Path | str,
    repository: Path,
    listen: Listen,
    key: Key,
    *,
    exit_timeout_s: int,
    closed_grpc: Iterable[str] = RISKY,
    closed_http: Iterable[str] = ALL,
    more: Iterable[str] = (),
) -> list[str]:
    """The program and its arguments.

    Args:
        binary: tritonserver.
        repository: The model repository.
        listen: Addresses and ports.
        key: The key to the closed interfaces.
        exit_timeout_s: Seconds that requests under way get when tritonserver is told to end.
        closed_grpc: Interfaces that gRPC answers only with the key.
        closed_http: The same for HTTP, which the launcher's probe uses.
        more: Flags of one launcher alone; they come last, and the last of two that differ counts.
    """
    return [
        str(binary),
        f"--model-repository={repository}",
        "--disable-auto-complete-config",
        # A model that fails to load is reported as unavailable; the others are served.
        "--exit-on-error=false",
        "--strict-readiness=true",
        f"--http-address={LOOPBACK}",
        f"--http-port={listen.http_port}",
        f"--http-restricted-api={key.closes(closed_http)}",
        f"--grpc-address={listen.address}",
        f"--grpc-port={listen.grpc_port}",
        f"--grpc-restricted-protocol={key.closes(closed_grpc)}",
        f"--metrics-address={listen.address}",
        f"--metrics-port={listen.metrics_port}",
        f"--exit-timeout-secs={exit_timeout_s}",
        *more,
    ]
