"""docs/settings.md and the gateway's settings say the same."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic.fields import FieldInfo

from server.client import Classify
from server.observability import metrics
from server.settings import CLIENT_PREFIX, PREFIX, Settings
from server.similar import Similar
from tests.waiting import CHECKOUT

PAGE = (CHECKOUT / "docs/settings.md").read_text()


def row(name: str, field: FieldInfo, prefix: str) -> str:
    """The line of the table for one setting."""
    flag = f"--{(field.alias or name).replace('_', '-')}"
    if field.is_required():
        default = "required"
    elif name == "decode_threads":
        default = "cores"
    elif isinstance(field.default, Path):
        default = f"`{field.default.relative_to(CHECKOUT)}`"
    elif field.default in {None, ""}:
        default = "none"
    elif isinstance(field.default, float):
        default = f"`{field.default:g}`"
    else:
        default = f"`{str(field.default).lower()}`"
    values = get_args(field.annotation)
    if all(isinstance(value, str) for value in values) and values:
        default += f" (of {', '.join(values)})"
    variable = (prefix + (field.alias or name)).upper()
    return f"| `{flag}` | `{variable}` | {default} | {field.description} |"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_its_row(name: str) -> None:
    assert row(name, Settings.model_fields[name], PREFIX) in PAGE.splitlines()


def test_the_metrics_are_those_of_the_gateway() -> None:
    section = PAGE.partition("## Metrics")[2].partition("\n## ")[0]
    named = {name.removesuffix("_total") for name in re.findall(r"`(mixer_\w+)`", section)}
    assert named == {each.name for each in metrics.together().collect() if "mixer" in each.name}


@pytest.mark.parametrize("command", [Classify, Similar])
def test_every_flag_of_the_client_has_its_row(command: type[Classify] | type[Similar]) -> None:
    for name, field in command.model_fields.items():
        if name != "images":
            assert row(name, field, CLIENT_PREFIX) in PAGE.splitlines()


def test_no_row_is_left_of_a_setting_that_went() -> None:
    variables = set(re.findall(r"^\| `--[\w-]+` \| `(\w+)`", PAGE, re.MULTILINE))
    known = {PREFIX + name for name in Settings.model_fields}
    commands = Classify, Similar
    known |= {
        CLIENT_PREFIX + (f.alias or name)
        for command in commands
        for name, f in command.model_fields.items()
    }
    assert variables <= {name.upper() for name in known}
