"""A checkpoint becomes a served model, with containers alone."""

import contextlib
import dataclasses
import functools
import http.server
import ipaddress
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contracts.model_config import parameters, read_config
from tests.compose.stack import Stack, missing, run, running_stack
from tests.export import libraries
from tests.export.weights_server import serving
from tests.photos import photo
from tests.stack import DEFAULT_MODEL
from tests.waiting import CHECKOUT

LACKING = missing()
pytestmark = [pytest.mark.skipif(bool(LACKING), reason=LACKING), pytest.mark.timeout(900)]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Lists a folder, as pip's --find-links reads it."""

    def log_message(self, *_: object) -> None:
        pass


def this_machine() -> str:
    """Its address, as a build and a container on Docker's own bridge see it."""
    form = "{{(index .IPAM.Config 0).Subnet}}"
    subnet = run("docker", "network", "inspect", "bridge", "--format", form).stdout.strip()
    return str(next(ipaddress.ip_network(subnet).hosts()))


@contextlib.contextmanager
def torch_wheels() -> Iterator[list[str]]:
    """Build arguments: where pip of this machine finds PyTorch in a folder, so does the image's."""
    command = (sys.executable, "-m", "pip", "config", "get", "global.find-links")
    folder = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    folder = folder or os.environ.get("PIP_FIND_LINKS", "")
    if not folder or not list(Path(folder).glob("torch-*+cpu-*.whl")):
        yield []  # the address in the Dockerfile
        return
    bridge = this_machine()
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer((bridge, 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://{bridge}:{server.server_port}/"
            yield [
                "--build-arg",
                f"TORCH_WHEELS={url}",
                "--build-arg",
                f"PIP_TRUSTED_HOST={bridge}",
            ]
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack whose repository belongs to the user of the container `export`."""
    owner = f"{os.getuid() or 1000}:{os.getgid() or 1000}"
    with running_stack(tmp_path_factory.mktemp("export"), EXPORT_USER=owner) as running:
        if not os.getuid():
            for path in [*Path(running.variables["MODEL_REPOSITORY"]).rglob("*")]:
                os.chown(path, 1000, 1000)
            os.chown(running.variables["MODEL_REPOSITORY"], 1000, 1000)
        with torch_wheels() as arguments:
            running.compose("build", *arguments, "export")
        yield running


def test_a_checkpoint_becomes_a_served_model(stack: Stack) -> None:
    """The shipped checkpoint, published anew under another name, answers as the shipped model.

    That has a temperature besides, by which its logits are divided.
    """
    done = stack.compose(
        *("run", "--rm", "--no-TTY", "export", "--name", "second"),
        *("--checkpoint", "/checkpoints/mixer_cifar10.npz"),
        *("--labels", "/checkpoints/mixer_cifar10.labels.txt"),
    )
    assert "published /models/second" in done.stdout
    run("deploy/reload.sh", variables=stack.environment)
    config = read_config(CHECKOUT / "model_repository" / DEFAULT_MODEL / "config.pbtxt")
    temperature = float(parameters(config)["temperature"])
    shipped, second = (stack.classify(photo(3), name) for name in (DEFAULT_MODEL, "second"))
    assert [each["label"] for each in second] == [each["label"] for each in shipped]
    theirs, ours = (
        np.log([each["probability"] for each in answer]) for answer in (shipped, second)
    )
    assert np.allclose(ours - ours[0], temperature * (theirs - theirs[0]), atol=1e-3)
    published = Path(stack.variables["MODEL_REPOSITORY"]) / "second"
    shutil.rmtree(published)


def test_published_weights_are_downloaded_only_where_that_is_asked_for(
    stack: Stack, tmp_path: Path
) -> None:
    """The container has no network but for EXPORT_NETWORK=bridge; what it downloaded is kept."""
    mixer = libraries.timm().models.mlp_mixer._create_mixer(
        "mixer_b16_224", embed_dim=32, num_blocks=1, num_classes=10
    )
    libraries.save_timm(libraries.randomized(mixer), tmp_path)
    name = "mixer_b16_224.miil_in21k_ft_in1k"
    command = ("run", "--rm", "--no-TTY", "export", "--pretrained", name)
    published = Path(stack.variables["MODEL_REPOSITORY"]) / name
    with serving(this_machine()) as hub:
        for file in ("config.json", "model.safetensors"):
            hub.hub[f"timm/{name}/{file}"] = (tmp_path / file).read_bytes()
        online = dataclasses.replace(
            stack, variables=stack.variables | {"HF_ENDPOINT": hub.url, "EXPORT_NETWORK": "bridge"}
        )
        closed = dataclasses.replace(stack, variables=online.variables | {"EXPORT_NETWORK": "none"})
        refused = closed.compose(*command, check=False)
        assert refused.returncode == 1
        assert "EXPORT_NETWORK=bridge docker compose run" in refused.stderr
        assert not hub.requests
        done = online.compose(*command)
        assert f"published /models/{name}" in done.stdout
        shutil.rmtree(published)
        count = len(hub.requests)
        kept = closed.compose(*command)
        assert f"published /models/{name}" in kept.stdout
        assert len(hub.requests) == count
    shutil.rmtree(published)


def test_what_goes_wrong_is_said(stack: Stack) -> None:
    command = ("run", "--rm", "--no-TTY", "export", "--name", "third", "--checkpoint")
    absent = stack.compose(*command, "/checkpoints/absent.npz", check=False)
    assert absent.returncode == 2
    assert "absent.npz" in absent.stderr
    stranger = ("run", "--rm", "--no-TTY", "--user", "1234", *command[3:])
    refused = stack.compose(*stranger, "/checkpoints/mixer_cifar10.npz", check=False)
    assert refused.returncode == 2
    assert "/models: cannot write there (Permission denied)" in refused.stderr


def test_the_image_has_no_cuda(stack: Stack) -> None:
    code = "import torch; print(torch.version.cuda)"
    image = f"{stack.project}-export"
    python = ("--entrypoint", "/opt/mixer-serving/.venv/bin/python")
    assert run("docker", "run", "--rm", *python, image, "-c", code).stdout == "None\n"
