"""The local Triton: the tritonserver of the nvidia-pytriton wheel, kept alive beside the gateway.

In: a model repository and Triton's own Python environment (.venv-triton). Out: a gRPC address on
loopback that answers while `run` does. A tritonserver that dies or hangs is started again, and so
is one that has lost a model's process: Triton 2.51 goes on calling itself ready, but never answers
for that model again (fixed in 26.04).
"""

from pathlib import Path

from server.local_triton.command_line import LOOPBACK, Listen
from server.local_triton.installation import Wheel
from server.local_triton.launch import LocalTritonError
from server.local_triton.repository import check_repository
from server.local_triton.restarts import Supervisor, free_port

__all__ = ["LocalTriton", "LocalTritonError", "free_port"]

ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv-triton"


class LocalTriton(Supervisor):
    """One supervised tritonserver of the wheel, on 127.0.0.1 unless told otherwise."""

    def __init__(
        self,
        repository: Path,
        *,
        environment: Path = ENVIRONMENT,
        address: str = LOOPBACK,
        grpc_port: int | None = None,
        metrics_port: int | None = None,
        http_port: int | None = None,
    ) -> None:
        """Choose the addresses; nothing runs yet.

        Args:
            repository: The model repository to serve.
            environment: The Python environment that holds the wheel.
            address: Where gRPC and metrics listen. Other than loopback only on a network that
                nobody but the gateway can reach: SECURITY.md.
            grpc_port: Port of Triton's gRPC service; None takes a free one.
            metrics_port: Port of Triton's Prometheus metrics; None takes a free one.
            http_port: Port of Triton's HTTP service, always on 127.0.0.1; None takes a free one and
                answers nobody but the supervisor.
        """
        self.repository = repository
        listen = Listen(
            grpc_port=free_port() if grpc_port is None else grpc_port,
            metrics_port=free_port() if metrics_port is None else metrics_port,
            http_port=free_port() if http_port is None else http_port,
            address=address,
        )
        self.grpc_port, self.metrics_port = listen.grpc_port, listen.metrics_port
        self.http_port = listen.http_port

        def program() -> Wheel:
            check_repository(repository)
            return Wheel(environment, repository, open_http=http_port is not None)

        super().__init__(program, listen)
