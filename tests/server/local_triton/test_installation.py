"""Triton's own environment: what is missing is named, and no secret is passed on."""

from dataclasses import replace
from pathlib import Path

import pytest

from server.local_triton import installation as tritonserver
from server.local_triton.stubs import children
from server.local_triton.supervisor import ENVIRONMENT, LocalTriton, LocalTritonError
from tests import tiny_models
from tests.server.local_triton.harm import refusal


def test_passes_no_secret_on(triton: LocalTriton) -> None:
    assert triton.pid is not None
    for pid in (triton.pid, *children(triton.pid)):
        variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
        names = {variable.partition("=")[0] for variable in variables if variable}
        assert "ORT_DISABLE_TELEMETRY=1" in variables
        # Of the shell through which Triton starts its stubs, and of PEP 538.
        names -= {"PWD", "SHLVL", "_", "LC_CTYPE"}
        assert names <= {
            *tritonserver.PASSED_ON,
            "PATH",
            "LD_LIBRARY_PATH",
            "ORT_DISABLE_TELEMETRY",
        }


def test_refuses_an_unusable_repository(tmp_path: Path) -> None:
    assert "not a folder" in refusal(LocalTriton(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    assert "python -m export" in refusal(LocalTriton(tmp_path / "empty"))
    broken = tiny_models.publish(tmp_path / "broken", "broken")
    (broken / tiny_models.MODEL_FILE).unlink()
    message = refusal(LocalTriton(tmp_path / "broken"))
    assert "could load no model" in message
    assert "model.onnx is missing" in message


def test_says_what_to_do_without_the_wheel(model_repository: Path, tmp_path: Path) -> None:
    message = refusal(LocalTriton(model_repository, environment=tmp_path))
    assert "make serve" in message
    assert "docker compose up" in message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("sys.platform", "darwin", "darwin"),
        ("platform.machine", lambda: "riscv64", "riscv64"),
        ("platform.libc_ver", lambda: ("glibc", "2.31"), "2.31"),
        ("platform.libc_ver", lambda: ("", ""), "glibc"),
    ],
)
def test_says_what_to_do_on_another_system(
    model_repository: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object, expected: str
) -> None:
    monkeypatch.setattr(f"server.local_triton.installation.{name}", value)
    message = refusal(LocalTriton(model_repository))
    assert expected in message
    assert "docker compose up" in message


def test_says_which_library_is_missing(tmp_path: Path) -> None:
    found = replace(tritonserver.find(ENVIRONMENT), libraries=())
    with pytest.raises(LocalTritonError, match=r"cannot open shared object.*docker compose up"):
        tritonserver.make_backends(found, tmp_path / "backends")


def test_says_that_programs_cannot_run_there(tmp_path: Path) -> None:
    stub = tmp_path / "triton_python_backend_stub"
    stub.write_bytes(b"\0")
    found = replace(tritonserver.find(ENVIRONMENT), stub=stub)
    with pytest.raises(LocalTritonError, match=r"cannot run a program in .*TMPDIR"):
        tritonserver.make_backends(found, tmp_path / "backends")
