"""A machine of a user of `--pretrained`, with a stand-in for the hub and Google's storage."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from export import __main__
from tests.export.weights_server import Weights
from tests.exported import GOLDEN
from tests.waiting import CHECKOUT

HUB = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
GOOGLE = "mixer_models/sam/Mixer-B_32.npz"
CHECKPOINT = GOLDEN / "mixer_tiny" / "checkpoint.npz"
# No torch: these begin in half a second.
FETCH_HUB = "from export.pretrained.hub import fetch_repository as f; print(f('timm/{}'))"
FETCH_GOOGLE = (
    "from export.pretrained.google import fetch_object as f; print(f(*'{}'.split('/', 1)))"
)
FETCH = "from export.pretrained.fetching import fetch as f; print(f('{}').path)"


class Machine:
    """A user's machine: its own caches, and the server as hub and storage."""

    def __init__(self, weights: Weights, home: Path) -> None:
        self.home, self.repository = home, home / "repository"
        self.variables = {
            "HF_ENDPOINT": weights.url,
            "STORAGE_EMULATOR_HOST": weights.url,
            "HF_HOME": str(home / "huggingface"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_ETAG_TIMEOUT": "30",
            "no_proxy": "127.0.0.1",
        }

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=CHECKOUT,
            env=environment | self.variables | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **variables: str) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        with self.start(*command, **variables) as process:
            out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    def fetch(self, code: str, name: str, **variables: str) -> Path:
        """The path of the fetched file or folder."""
        status, out, err = self.run("-c", code.format(name), **variables)
        assert status == 0, err
        return Path(out.strip())

    def refused(self, code: str, name: str, **variables: str) -> str:
        """What is said where a fetch fails."""
        status, _, err = self.run("-c", code.format(name), **variables)
        assert status == 1
        return err.strip().splitlines()[-1]

    def config(self, name: str) -> str:
        return (self.repository / name / "config.pbtxt").read_text()


class Here:
    """The command line in this process, which has PyTorch already; Google's storage alone."""

    def __init__(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("STORAGE_EMULATOR_HOST", "XDG_CACHE_HOME", "no_proxy"):
            monkeypatch.setenv(name, machine.variables[name])
        self._repository, self._monkeypatch, self._capsys = machine.repository, monkeypatch, capsys

    def __call__(self, *flags: str) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        arguments = ["export", *flags, "--repository", str(self._repository)]
        self._monkeypatch.setattr(sys, "argv", arguments)
        status = __main__.main()
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err
