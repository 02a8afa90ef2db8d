"""server/engines/triton/circuit_breaker.py: every transition."""

from server.engines.triton.circuit_breaker import CircuitBreaker, State
from server.problems import ModelNotReady

PROBLEM = ModelNotReady("it does not answer")


def test_a_failed_call_is_followed_by_a_probe_that_decides() -> None:
    breaker = CircuitBreaker()
    assert breaker.state is State.CLOSED
    assert breaker.call_failed()
    assert breaker.state.value == "half-open"
    assert breaker.problem is None
    assert not breaker.call_failed()
    assert breaker.probe_passed()
    assert breaker.state.value == "closed"
    assert not breaker.probe_passed()


def test_failing_probes_keep_it_open_until_one_passes() -> None:
    breaker = CircuitBreaker()
    assert breaker.probe_failed(PROBLEM)  # without any call
    assert breaker.state.value == "open"
    assert breaker.problem is PROBLEM
    assert not breaker.call_failed()
    again = ModelNotReady("nor now")
    assert not breaker.probe_failed(again)
    assert breaker.problem is again
    assert breaker.probe_passed()
    assert breaker.state.value == "closed"
    assert breaker.problem is None
