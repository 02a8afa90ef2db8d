from server.host.crash_loop import QUICK_DEATHS, CrashLoop


def test_quick_deaths_in_a_row_are_counted() -> None:
    crashes = CrashLoop(quick_s=10.0)
    for _ in range(QUICK_DEATHS - 1):
        assert crashes.died(9.9)
        assert not crashes.hopeless
    assert crashes.died(0.0)
    assert crashes.hopeless


def test_a_long_life_begins_the_count_anew() -> None:
    crashes = CrashLoop(quick_s=10.0, limit=2)
    assert crashes.died(1.0)
    assert not crashes.died(10.0)
    assert crashes.died(1.0)
    assert (crashes.deaths, crashes.hopeless) == (1, False)
