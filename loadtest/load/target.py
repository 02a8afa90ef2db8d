"""A target of load: it answers requests, and says whether each answer was right.

A target is one model, reached through the gateway or at Triton directly.
"""

from typing import NamedTuple, Protocol

from loadtest.load import forms

PATIENCE = 60.0  # seconds for an answer; beyond it the request has failed


class TargetError(RuntimeError):
    """The target cannot be measured at all; the message names the server and the request."""


class BusyError(TargetError):
    """The gateway sheds the request (429): the work before it would take too long."""


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
    """Answers requests, each with a number of images."""

    images: int  # per request

    async def ask(self, number: int) -> Answered:
        """Send the request of this number (modulo their count); never raises for a bad answer."""
        ...
