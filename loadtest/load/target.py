"""What load is put on: something that answers images, and says whether the answer was right.

A target is one model by one way: through the gateway, or straight at Triton.
"""

import dataclasses
from typing import Protocol

PATIENCE = 60.0  # seconds for an answer; beyond it the request has failed


class TargetError(RuntimeError):
    """The target cannot be measured at all; the message says what was asked of whom."""


class BusyError(TargetError):
    """The gateway refuses for now (429): what is before the request takes too long."""


@dataclasses.dataclass(frozen=True)
class Answered:
    """The end of one request."""

    error: str = ""  # "" when the answer is right
    phases: dict[str, float] = dataclasses.field(default_factory=dict)  # milliseconds


class Target(Protocol):
    """One model by one way."""

    images: int  # per request

    async def ask(self, number: int) -> Answered:
        """Send the image of this number (modulo their count); never raises for a bad answer."""
        ...
