"""What other systems lack is not needed: the programs run without it, taken away before they start.

Nothing here was run on macOS or Windows. What Python's documentation says that these have not is
removed from the interpreter instead.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.photos import photo
from tests.stack import DEFAULT_MODEL, running_gateway
from tests.waiting import CHECKOUT

# macOS and Windows bind no process to some of the cores.
NO_AFFINITY = "import os\ndel os.sched_getaffinity\n"
# https://docs.python.org/3/library/asyncio-platforms.html#windows; and uvloop has no wheel there.
WINDOWS = f"""{NO_AFFINITY}
import asyncio, sys
def unavailable(*_):
    raise NotImplementedError
sys.modules["uvloop"] = None
asyncio.SelectorEventLoop.add_signal_handler = unavailable
"""


def without(what: str, folder: Path) -> dict[str, str]:
    """Variables with which a Python starts without what the code `what` takes away."""
    (folder / "sitecustomize.py").write_text(what)
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("what", [NO_AFFINITY, WINDOWS], ids=["no affinity", "like Windows"])
def test_a_gateway_serves_without_triton_and_ends_by_a_signal(what: str, tmp_path: Path) -> None:
    environment = without(what, tmp_path)
    flags = ("--engine", "onnxruntime", "--default-model", DEFAULT_MODEL)
    with running_gateway(tmp_path / "log", *flags, environment=environment) as gateway:
        answer = httpx.post(
            f"{gateway.url}/classify",
            content=photo(0, 400, 300),  # large enough for a thread of its own
            headers={"Content-Type": "image/jpeg"},
            trust_env=False,
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(30) == 0
        assert "Traceback" not in gateway.log.read_text()


COMMANDS = [("export", "--list"), ("reference", "--help"), ("loadtest", "--help")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_program_starts(command: tuple[str, ...], tmp_path: Path) -> None:
    run("-m", *command, environment=without(NO_AFFINITY, tmp_path))


def test_the_load_tests_know_the_machine(tmp_path: Path) -> None:
    code = "from loadtest.machine.conditions import conditions; print(conditions()['cpu'])"
    said = run("-c", code, environment=without(NO_AFFINITY, tmp_path))
    assert f"{os.cpu_count()} cores" in said


def run(*arguments: str, environment: dict[str, str]) -> str:
    """What Python prints with these arguments."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=CHECKOUT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
