"""export/throughput.py: what it refuses."""

import pytest

from export import throughput


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--models", "mixer_testing", "mixer_xx"), "unknown mixer_xx; known: "),
        (("--models", "mixer_testing", "--out", "no/such/x.json"), "there is no folder no/such"),
    ],
)
def test_throughput_refuses_before_it_has_measured(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    assert throughput.main(flags) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
