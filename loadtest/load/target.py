"""What load is put on: something that answers requests, and says whether an answer was right.

A target is one model by one way: through the gateway, or straight at Triton.
"""

from typing import NamedTuple, Protocol

from loadtest.load import forms

PATIENCE = 60.0  # seconds for an answer; beyond it the request has failed


class TargetError(RuntimeError):
    """The target cannot be measured at all; the message says what was asked of whom."""


class BusyError(TargetError):
    """The gateway refuses for now (429): what is before the request takes too long."""


class Answered(NamedTuple):
    """The end of one request."""

    error: str = ""  # "" when the answer is right
    status: int = 200  # of HTTP; 0 without an answer
    timing: str = ""  # the header Server-Timing

    @property
    def phases(self) -> dict[str, float]:
        """Milliseconds of each phase of the gateway."""
        return forms.phases(self.timing)


class Target(Protocol):
    """What answers requests."""

    images: int  # per request

    async def ask(self, number: int) -> Answered:
        """Send the request of this number (modulo their count); never raises for a bad answer."""
        ...
