"""The command line of tritonserver: of the wheel's and of NVIDIA's, closed as far as both allow.

In: where tritonserver and the model repository are, where it shall listen, and what only one of
the two launchers needs. Out: the arguments. Python's own library alone, since NVIDIA's image has
this file too.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Interfaces that nobody needs, and of which several releases had holes.
RISKY = ("shared-memory", "trace", "logging")


@dataclass(frozen=True)
class Listen:
    """Where one tritonserver listens."""

    grpc_port: int
    metrics_port: int
    http_port: int | None = None  # always on loopback alone; None is without HTTP
    address: str = LOOPBACK  # of gRPC and metrics


def command_line(
    binary: Path | str,
    repository: Path,
    listen: Listen,
    *,
    exit_timeout_s: int,
    more: Iterable[str] = (),
) -> list[str]:
    """The program and its arguments.

    Args:
        binary: tritonserver.
        repository: The model repository.
        listen: Addresses and ports.
        exit_timeout_s: Seconds that requests under way get when tritonserver is told to end.
        more: Flags of one launcher alone; they come last, and the last of two that differ counts.
    """
    # A header that must have a value which nobody is told: nobody can send it.
    closed = f"{','.join(RISKY)}:closed={secrets.token_hex(16)}"
    http = (
        ["--allow-http=false"]
        if listen.http_port is None
        else [
            f"--http-address={LOOPBACK}",
            f"--http-port={listen.http_port}",
            f"--http-restricted-api={closed}",
        ]
    )
    return [
        str(binary),
        f"--model-repository={repository.resolve()}",
        "--disable-auto-complete-config",
        # A model that fails to load is reported as unavailable; the others are served.
        "--exit-on-error=false",
        "--strict-readiness=true",
        *http,
        f"--grpc-address={listen.address}",
        f"--grpc-port={listen.grpc_port}",
        f"--grpc-restricted-protocol={closed}",
        f"--metrics-address={listen.address}",
        f"--metrics-port={listen.metrics_port}",
        f"--exit-timeout-secs={exit_timeout_s}",
        *more,
    ]
