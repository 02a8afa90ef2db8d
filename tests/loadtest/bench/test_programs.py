"""`python -m loadtest bench`: every program is listed and explains itself."""

import pytest

from loadtest.bench.programs import NAMES
from tests.loadtest.runs import loadtest


def test_all_programs_are_listed() -> None:
    done = loadtest("bench", "--help")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [line[0] for line in lines] == list(NAMES)
    assert all(len(line) > 5 for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_a_program_explains_itself(name: str) -> None:
    done = loadtest("bench", name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: python -m loadtest bench {name}" in done.stdout


def test_the_command_line_names_the_list_of_programs() -> None:
    assert ",bench}" in loadtest("--help").stdout
    assert "bench" in loadtest().stderr.replace("\n", " ")


def test_an_unknown_program_is_one_line() -> None:
    done = loadtest("bench", "servings")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no 'servings'; there are: serving, start,")


def test_a_mistake_is_one_line() -> None:
    done = loadtest("bench", "serving", "--cases", "nothing")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --cases nothing: expected some of tiny, photo, camera")
    assert done.stderr.count("\n") == 1
