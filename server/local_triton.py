"""The local Triton: starts the tritonserver of the nvidia-pytriton wheel and keeps it alive.

In: a model repository and Triton's own Python environment (.venv-triton).
Out: a gRPC address on loopback, and at the end nothing left behind.
"""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


class LocalTritonError(RuntimeError):
    """The local Triton cannot be started or kept alive; the message says why and what to do."""


class LocalTriton:
    """One supervised tritonserver on 127.0.0.1."""

    def __init__(
        self,
        repository: Path,
        *,
        environment: Path = CHECKOUT / ".venv-triton",
        grpc_port: int | None = None,
    ) -> None:
        self.repository = repository
        self.environment = environment
        self.grpc_url = f"127.0.0.1:{grpc_port}"

    async def run(self) -> None:
        """Start tritonserver and keep it alive until cancelled or stopped."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Stop tritonserver and remove everything that it left."""
        raise NotImplementedError
