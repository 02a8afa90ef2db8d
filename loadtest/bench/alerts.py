"""The project's alerts, evaluated by a real Prometheus during a measurement.

In: ports with metrics. Out: the alerts that fire. The rules are those of deploy/observability, with
one change: no alert waits before it fires, because a measurement does not last five minutes.
"""

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from loadtest import CHECKOUT
from loadtest.servers.launch import free_port, get

RULES = CHECKOUT / "deploy/observability/rules/mixer-serving.yml"
FIRING_SECONDS = 30.0


@contextlib.contextmanager
def prometheus(folder: Path, ports: list[int]) -> Iterator[str]:
    """The address of a Prometheus that watches these ports; "" where none is installed."""
    program = shutil.which("prometheus")
    if program is None:
        yield ""
        return
    rules = re.sub(r"^( +for:) \d+[mh]$", r"\1 0s", RULES.read_text(), flags=re.MULTILINE)
    (folder / "rules.yml").write_text(rules, encoding="utf-8")
    targets = [f"127.0.0.1:{port}" for port in ports]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yml")],
        "scrape_configs": [{"job_name": "triton", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.json").write_text(json.dumps(config), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            *(program, f"--config.file={folder / 'prometheus.json'}", "--log.level=error"),
            *(f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}"),
        ]
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


async def firing(url: str, expected: set[str]) -> set[str]:
    """The alerts that fire; returns when all of `expected` fire, or when the waiting time ends."""
    deadline = time.monotonic() + FIRING_SECONDS
    while True:
        _, text = await asyncio.to_thread(get, f"{url}/api/v1/alerts")
        alerts = json.loads(text or b"{}").get("data", {}).get("alerts", [])
        names = {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}
        if names >= expected or time.monotonic() > deadline:
            return names
        await asyncio.sleep(0.5)
