"""The command line of export for tests, in this process, which has PyTorch already."""

import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export import __main__
from tests.exported import GOLDEN

CHECKPOINT = str(GOLDEN / "mixer_tiny" / "checkpoint.npz")


class Export:
    """Runs the command line with a repository of its own, in `folder`."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.repository = folder / "repository"
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, stdout and stderr."""
        flags = [*arguments, "--repository", str(self.repository)]
        self._monkeypatch.setattr(sys, "argv", ["export", *flags])
        try:
            status = __main__.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def config(self, name: str) -> model_config_pb2.ModelConfig:
        """The parsed config.pbtxt of a published model."""
        text = (self.repository / name / "config.pbtxt").read_text()
        config: model_config_pb2.ModelConfig = text_format.Parse(
            text, model_config_pb2.ModelConfig()
        )
        return config

    def parameters(self, name: str) -> dict[str, str]:
        """The `parameters` of a published model."""
        return {key: value.string_value for key, value in self.config(name).parameters.items()}
