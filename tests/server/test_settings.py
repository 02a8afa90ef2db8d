"""server/settings.py: flags, variables, and values that do not fit."""

import pytest

from server.settings import Settings, SettingsError, read


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"MIXER_{name.upper()}", raising=False)


def test_defaults_listen_on_this_machine_only() -> None:
    settings = read([])
    assert (settings.host, settings.port, settings.with_triton) == ("127.0.0.1", 8000, False)
    assert settings.decode_threads >= 1


def test_flags_win_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXER_PORT", "1234")
    monkeypatch.setenv("MIXER_WITH_TRITON", "true")
    assert read([]).port == 1234
    assert read([]).with_triton
    settings = read(["--port", "5678", "--no-with-triton"])
    assert (settings.port, settings.with_triton) == (5678, False)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--port", "http", "--port (MIXER_PORT): "),
        ("--port", "65536", "less than or equal to 65535"),
        ("--triton-url", "http://triton:8001", "HOST:PORT without a scheme"),
        ("--triton-url", "triton", "HOST:PORT"),
        ("--triton-url", "triton:0", "HOST:PORT"),
        ("--triton-url", "triton:8001,", "HOST:PORT"),
        ("--triton-url", "triton:8001,other", "HOST:PORT"),
        ("--triton-url", "::1:8001", "HOST:PORT"),
        ("--request-timeout", "0", "--request-timeout (MIXER_REQUEST_TIMEOUT): "),
        ("--request-timeout", "nan", "--request-timeout"),
        ("--max-pixels", "-1", "--max-pixels"),
        ("--decode-threads", "0", "--decode-threads"),
        ("--log-level", "loud", "--log-level"),
        ("--default-model", "", "--default-model"),
        ("--cors-origins", "example.org", "such as https://example.org"),
        ("--cors-origins", "https://a.org/,https://b.org", "without a path"),
        ("--workers", "0", "--workers (MIXER_WORKERS): "),
        ("--log-format", "xml", "--log-format"),
    ],
)
def test_a_bad_value_is_reported_with_its_name(flag: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read([flag, value])
    assert message in str(caught.value)
    assert repr(value) in str(caught.value)
    assert "Value error" not in str(caught.value)  # the words of pydantic


@pytest.mark.parametrize("url", ["triton:8001", "10.0.0.1:8001,b.example.org:1", "[::1]:8001"])
def test_one_triton_or_several(url: str) -> None:
    assert read(["--triton-url", url]).triton_url == url


def test_a_variable_without_a_setting_is_reported() -> None:
    with pytest.raises(SettingsError, match="MIXER_PROT: no setting has this name"):
        read([], {"MIXER_PROT": "8000", "PATH": "/bin"})


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())
