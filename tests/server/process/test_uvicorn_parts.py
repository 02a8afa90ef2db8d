"""What the gateway uses of uvicorn is looked at before it serves: a changed name ends the start."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import uvicorn

from server.process import uvicorn_parts
from tests.waiting import CHECKOUT

HTTP = "protocols/http/httptools_impl.py"


def test_the_installed_uvicorn_has_all_of_it() -> None:
    assert callable(uvicorn_parts.http_protocol())


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("file", "names", "says"),
    [
        pytest.param(
            HTTP,
            ("def data_received(self", "def bytes_received(self"),
            "HttpToolsProtocol has no data_received()",
            id="a callback of asyncio",
        ),
        pytest.param(
            HTTP,
            ("app_state: dict", "state: dict"),
            "HttpToolsProtocol.__init__() takes (config, server_state, state, _loop), expected "
            "(config, server_state, app_state, _loop)",
            id="an argument",
        ),
        pytest.param(
            "server.py",
            ("def capture_signals(", "def catch_signals("),
            "Server has no capture_signals()",
            id="what is overridden",
        ),
        pytest.param(
            "config.py",
            ("HttpToolsProtocol", "HttpProtocol"),
            "its HTTP protocol on httptools cannot be loaded",
            id="the class",
        ),
    ],
)
def test_a_changed_name_ends_the_start_with_a_sentence(
    tmp_path: Path, file: str, names: tuple[str, str], says: str, workers: str
) -> None:
    changed = tmp_path / "uvicorn"
    shutil.copytree(Path(uvicorn.__file__).parent, changed)
    text = (changed / file).read_text()
    assert names[0] in text
    (changed / file).write_text(text.replace(*names))
    done = subprocess.run(
        [sys.executable, "-m", "server", "--port", "0", "--workers", workers],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"python -m server: uvicorn {uvicorn.__version__} cannot be served")
    assert says in sentence
    assert sentence.endswith("requirements/constraints.txt names")
