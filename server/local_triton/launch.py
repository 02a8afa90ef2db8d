"""What a supervisor must know about the tritonserver that it starts: the wheel's, or NVIDIA's.

In: nothing. Out: the types in which a launcher says how its tritonserver is started and watched.
Imports only the standard library, since NVIDIA's image has this module too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.local_triton.command_line import ALL, RISKY


class LocalTritonError(RuntimeError):
    """A Triton cannot be started or kept alive; the message says why and what to do."""


class CrashError(LocalTritonError):
    """Triton was ended by a signal at its start, as by SIGABRT: it refused nothing."""


class NoModelError(LocalTritonError):
    """Triton has started and could load no model."""

    def __init__(self, message: str, not_loaded: Sequence[str]) -> None:
        super().__init__(message)
        self.not_loaded = not_loaded  # their names


@dataclass(frozen=True)
class Launch:
    """How one tritonserver is started."""

    binary: str
    repository: Path  # the model repository that tritonserver reads
    flags: Sequence[str]  # beside those of `command_line`
    environment: Mapping[str, str]
    needs_folder: bool = False  # even after the models are loaded
    closed_grpc: Sequence[str] = RISKY
    closed_http: Sequence[str] = ALL


class Program(Protocol):
    """A tritonserver that is installed here, and a model repository for it."""

    def prepare(self, folder: Path, prefix: str) -> Launch:
        """Everything that one start needs.

        Args:
            folder: An empty folder for what must be laid out; removed when tritonserver has ended.
            prefix: How the names of its regions of shared memory shall begin.

        Raises:
            LocalTritonError: it cannot be started; the message says why.
        """

    def can_do_without(self, error: LocalTritonError) -> bool:
        """Whether a failed first start may be tried again; `prepare` then leaves something out."""

    def helpers(self, pid: int) -> list[int]:
        """The processes without which this tritonserver is of no use."""

    def cpu_seconds(self, pid: int, model: str | None) -> float | None:
        """CPU time that a model, or tritonserver itself, has used so far; None if it is unknown."""
