"""Whether calls for one model should go to one Triton: a circuit breaker.

In: failed calls, and what probes found. Out: the state. The pattern is Nygard's (Release It!,
2007), with one difference: a probe decides about a breaker that is half-open, never a user's call.
"""

from enum import Enum

from server.problems import Problem


class State(Enum):
    """Where calls may go."""

    CLOSED = "closed"  # calls go to this Triton
    HALF_OPEN = "half-open"  # a call failed; calls go elsewhere if they can until a probe decides
    OPEN = "open"  # the last probe failed; calls go elsewhere if they can, waiting ones as well


class CircuitBreaker:
    """The breaker of one model on one Triton. Each method says whether the state changed."""

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.problem: Problem | None = None  # of the last probe; None unless the breaker is open

    def call_failed(self) -> bool:
        """A user's call was lost."""
        if self.state is not State.CLOSED:
            return False
        self.state = State.HALF_OPEN
        return True

    def probe_failed(self, problem: Problem) -> bool:
        """The model does not answer its probe as it should."""
        changed = self.state is not State.OPEN
        self.state, self.problem = State.OPEN, problem
        return changed

    def probe_passed(self) -> bool:
        """The model is healthy, or is not used until it has answered a probe again."""
        changed = self.state is not State.CLOSED
        self.state, self.problem = State.CLOSED, None
        return changed
