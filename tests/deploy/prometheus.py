"""A real Prometheus, and the dashboard's and the rules' queries to ask of it.

In: a running stack that is scraped. Out: `ask`, and the dashboard with its variables filled in as
Grafana does where all is chosen.
"""

import json
import re
from typing import Any

import httpx
import yaml

from tests.waiting import CHECKOUT, wait_for

OBSERVABILITY = CHECKOUT / "deploy/observability"
DASHBOARD = json.loads((OBSERVABILITY / "grafana/dashboards/mixer-serving.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], t["expr"]) for panel in PANELS for t in panel["targets"]]
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
RULES = [
    rule
    for group in yaml.safe_load((OBSERVABILITY / "rules/mixer-serving.yml").read_text())["groups"]
    for rule in group["rules"]
]
ON_A_GPU = {"GPU busy", "GPU memory"}
OF_NVIDIAS_IMAGE = {"Engines"}


def filled(query: str) -> str:
    """The query with everything chosen."""
    query = query.replace("$__rate_interval", "1m")
    for name, variable in VARIABLES.items():
        query = query.replace(f"${name}", variable.get("allValue", ""))
    assert "$" not in query
    return query


def ask(url: str, query: str) -> list[dict[str, Any]]:
    """The series of an instant query; none from a Prometheus that is not there yet."""
    try:
        answer = httpx.get(
            f"{url}/api/v1/query", params={"query": query}, trust_env=False, timeout=30
        )
    except httpx.TransportError:
        return []
    if answer.status_code != 200:
        assert answer.status_code == 503, answer.text
        return []
    result: list[dict[str, Any]] = answer.json()["data"]["result"]
    return result


def check_query(url: str, title: str, query: str) -> None:
    """Hold that there is something to see, a few scrapes later at most."""
    wait_for(lambda: has_numbers(ask(url, filled(query))), 60, f"{title}: {filled(query)}")


def has_numbers(result: list[dict[str, Any]]) -> bool:
    return bool(result) and not any(series["value"][1] == "NaN" for series in result)


def check_legends(url: str) -> None:
    """Hold that legends name labels that the series have."""
    for panel in PANELS:
        for target in panel["targets"]:
            wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            for series in ask(url, filled(target["expr"])):
                assert wanted <= set(series["metric"]), panel["title"]


def choices(url: str, name: str) -> set[str]:
    """What the variable offers, as Grafana asks for it."""
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", filled(VARIABLES[name]["query"]["query"]))
    assert found
    values = {series["metric"].get(found[2], "") for series in ask(url, found[1])}
    return values - {""}
