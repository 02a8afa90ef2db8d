"""`python -m server default`: the default model is exchanged while users ask, and back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.local_triton.supervisor import LocalTriton
from tests.server.web.users import Users
from tests.stack import DEFAULT_MODEL, client_of, running_gateway
from tests.waiting import CHECKOUT, wait_for


@pytest.mark.timeout(240)
def test_the_default_model_is_exchanged_and_back_while_users_ask(
    triton: LocalTriton, tmp_path: Path
) -> None:
    """In both workers, without a restart and without a failure."""
    file = tmp_path / "default"

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "server", "default", *arguments],
            cwd=CHECKOUT, env=os.environ | {"MIXER_DEFAULT_MODEL_FILE": str(file)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    flags = (
        *("--triton-url", triton.grpc_url, "--default-model", DEFAULT_MODEL, "--workers", "2"),
        *("--default-model-file", str(file), "--shadow", "linear:100%"),
    )
    with running_gateway(tmp_path / "log", *flags) as gateway:
        users = Users(gateway.url)

        def lately() -> set[str]:
            return {model for _, model in users.answers[-60:]}

        with users.asking():
            wait_for(lambda: len(users.answers) > 60, what="answers")
            assert lately() == {DEFAULT_MODEL}
            done = command("linear")
            assert done.returncode == 0, done.stderr
            wait_for(lambda: gateway.log.read_text().count("default model is linear") == 2)
            wait_for(lambda: lately() == {"linear"}, what="answers of the other model")
            with client_of(gateway) as client:
                assert client.get("/models").json()["default"] == "linear"
                assert client.get("/readyz").json()["model"] == "linear"
            # One that is not served is not used, and the log says so.
            command("nobody")
            wait_for(lambda: "names 'nobody', which is not served" in gateway.log.read_text())
            command("linear")
            command(DEFAULT_MODEL)
            assert (
                command("--back")
                .stdout.split(": ", 1)[1]
                .startswith(f"the default model is linear, before {DEFAULT_MODEL}\n")
            )
            command("--back")
            # A worker may have seen some of the names in between; the last stays.
            wait_for(lambda: lately() == {DEFAULT_MODEL}, what="answers of the first model")
        assert {status for status, _ in users.answers} == {200}
        with client_of(gateway) as client:
            # The labels of the two differ, so they cannot be compared, and all is told for both.
            pairs = client.get("/shadow").json()["comparisons"]
            assert {(each["model"], each["candidate"]) for each in pairs} == {
                (DEFAULT_MODEL, "linear"),
                ("linear", DEFAULT_MODEL),
            }
            assert {name for each in pairs for name in each["copies"]} == {"unfit"}


def test_what_the_command_refuses(tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {n: v for n, v in os.environ.items() if not n.startswith("MIXER_")}
        return subprocess.run(
            [sys.executable, "-m", "server", "default", *arguments],
            cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    file = ("--file", str(tmp_path / "default"))
    assert "--default-model" in command(*file).stdout
    done = command("mixer_cifar01", *file)
    assert "no model 'mixer_cifar01'; there are: " in done.stderr
    assert "Each gateway decides" in done.stdout
    assert not command("mixer_cifar10", *file).stderr
    (tmp_path / "default").unlink()
    for arguments, says in (
        (("m",), "--file FILE"),
        (("m", "--back", *file), "not both"),
        (("--back", *file), "no model from before"),
        ((" ", *file), "name of a model"),
        (("m", "--file", str(tmp_path / "none/default")), "cannot be written"),
    ):
        done = command(*arguments)
        assert done.returncode in {1, 2}
        assert says in done.stderr
    (tmp_path / "default").write_bytes(b"x" * 5000)
    assert "more than 4096 bytes" in command("m", *file).stderr
