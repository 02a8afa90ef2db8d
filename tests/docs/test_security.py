"""SECURITY.md: each promise names the tests that hold it, and they are there.

docs/triton.md says what Triton gets of the gateway's environment.
"""

import ast
import re

from server.local_triton.installation import PASSED_ON
from tests.waiting import CHECKOUT

PAGE = (CHECKOUT / "SECURITY.md").read_text()
PROMISES = PAGE.partition("## What is promised")[2].partition("## What is not promised")[0]


def test_every_promise_has_a_test() -> None:
    promises = re.split(r"^- ", PROMISES, flags=re.MULTILINE)[1:]
    assert len(promises) >= 11
    for promise in promises:
        assert re.search(r"Tests?:\s+`[\w/]+\.py::test_\w+`", promise), promise[:60]


def test_every_named_test_is_there() -> None:
    named = re.findall(r"`([^`\s]+\.py)::(\w+)`", PROMISES)
    assert len(named) > 30
    for path, name in named:
        tree = ast.parse((CHECKOUT / "tests" / path).read_text())
        found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in found, f"{path}::{name}"


def test_what_triton_gets_of_the_environment_is_told() -> None:
    page = (CHECKOUT / "docs/triton.md").read_text()
    told = re.search(r"environment is passed on but ([^.]+)\.", page)
    assert told
    assert sorted(re.findall(r"`([A-Z_]+)`", told[1])) == sorted(PASSED_ON)
