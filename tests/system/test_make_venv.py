"""`.ci/make-venv`: which Python an environment is made with, or what is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import CHECKOUT

MINOR = str(sys.version_info[1])
VERSION = f"3.{MINOR}"


def make_venv(
    folder: Path, minors: str, *given: str, path: Path
) -> subprocess.CompletedProcess[str]:
    """Run the script where only the programs of `path` and of the system's own tools are."""
    return subprocess.run(
        [CHECKOUT / ".ci/make-venv", folder, minors, *given],
        env={"PATH": f"{path}:{path}/tools", "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH without any Python."""
    tools = tmp_path / "programs/tools"
    tools.mkdir(parents=True)
    for name in ("basename", "echo", "rm", "sed", "sh"):
        tool = shutil.which(name, path="/usr/bin:/bin")
        assert tool is not None
        (tools / name).symlink_to(tool)
    return tools.parent


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_a_shim_that_does_not_run_is_passed_over(programs: Path, tmp_path: Path) -> None:
    program(programs, f"python{VERSION}", "echo 'pyenv: command not found' >&2; exit 127")
    program(programs, "python3", f'exec {sys.executable} "$@"')
    done = make_venv(tmp_path / "venv", f"99 {MINOR}", path=programs)
    assert done.returncode == 0, done.stderr
    assert f"with Python {VERSION} ({programs}/python3)" in done.stdout
    assert (tmp_path / "venv/bin/pip").exists()


def test_a_python_that_uv_has_installed_is_found(programs: Path, tmp_path: Path) -> None:
    program(programs, "uv", f'[ "$5" = {VERSION} ] && echo {sys.executable}')
    assert make_venv(tmp_path / "venv", MINOR, path=programs).returncode == 0
    assert (tmp_path / "venv/bin/python").exists()


def test_without_a_python_one_sentence_says_what_to_do(programs: Path, tmp_path: Path) -> None:
    done = make_venv(tmp_path / "venv", "11 12 13", path=programs)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "needs Python 3.11, 3.12 or 3.13, and none is here" in line
    assert "uv python install 3.12" in line
    assert "docker compose up" in line
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [(sys.executable, f"is Python {VERSION}."), ("/no/where", "/no/where cannot be run")],
)
def test_a_given_python_that_does_not_fit_is_named(
    given: str, said: str, programs: Path, tmp_path: Path
) -> None:
    done = make_venv(tmp_path / "venv", "98 99", given, path=programs)
    assert done.returncode == 1
    assert "needs Python 3.98 or 3.99" in done.stderr
    assert said in done.stderr


def test_an_environment_of_another_python_is_not_taken_for_it(
    programs: Path, tmp_path: Path
) -> None:
    (tmp_path / "venv/bin").mkdir(parents=True)
    program(tmp_path / "venv/bin", "python", "echo 3.98")
    done = make_venv(tmp_path / "venv", MINOR, sys.executable, path=programs)
    assert done.returncode == 1
    assert "venv has Python 3.98" in done.stderr
    assert "make clean" in done.stderr


def test_what_is_left_of_one_whose_python_has_gone_is_replaced(
    programs: Path, tmp_path: Path
) -> None:
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").symlink_to("/no/where")
    (tmp_path / "venv/.serve").touch()  # a stamp of make: its packages were for the other Python
    assert make_venv(tmp_path / "venv", MINOR, sys.executable, path=programs).returncode == 0
    assert not (tmp_path / "venv/.serve").exists()


def test_a_python_that_cannot_make_environments_leaves_none(programs: Path, tmp_path: Path) -> None:
    body = f'[ "$2" = venv ] && mkdir {tmp_path}/venv && exit 1; exec {sys.executable} "$@"'
    program(programs, "python3", body)
    (programs / "mkdir").symlink_to("/bin/mkdir")
    done = make_venv(tmp_path / "venv", MINOR, path=programs)
    assert done.returncode == 1
    assert f"python{VERSION}-venv is missing" in done.stderr
    assert not (tmp_path / "venv").exists()
