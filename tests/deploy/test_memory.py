"""The memory limits of deploy/ do for the gateway's worst case, as docs/serving.md has it."""

import re

import pytest
import yaml

from server.serving.decoding import PROCESSES_SHARE
from server.settings import read
from tests.waiting import CHECKOUT

OWN_MIB = 250  # the gateway itself, without Triton or a model
UNITS = {"g": 2**10, "m": 1, "Gi": 2**10, "Mi": 1}


def mib(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def compose() -> str:
    services = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"]
    found = re.fullmatch(r"\$\{GATEWAY_MEMORY:-(\w+)\}", services["gateway"]["mem_limit"])
    assert found
    return found[1]


def chart(name: str) -> str:
    values = yaml.safe_load((CHECKOUT / "deploy/helm" / name).read_text())
    limit: str = values["gateway"]["resources"]["limits"]["memory"]
    return limit


@pytest.mark.parametrize(
    ("where", "limit"),
    [
        ("compose", compose()),
        ("the chart", chart("values.yaml")),
        ("its values-gpu.yaml", chart("values-gpu.yaml")),
    ],
)
def test_the_worst_case_is_within_the_limit_and_in_the_docs(where: str, limit: str) -> None:
    assert PROCESSES_SHARE == 3
    buffered = read([], {}).max_buffered_bytes >> 20
    decoding = mib(limit) // 2  # what a gateway without --max-decode-bytes takes
    worst = round(buffered + decoding * (1 + 1 / PROCESSES_SHARE) + OWN_MIB)
    assert worst <= mib(limit)
    line = (
        f"{where}, {mib(limit) >> 10} GiB: {buffered} + 4/3 × {decoding} + {OWN_MIB} = {worst} MiB"
    )
    page = re.sub(r" +", " ", (CHECKOUT / "docs/serving.md").read_text())
    assert line in page
