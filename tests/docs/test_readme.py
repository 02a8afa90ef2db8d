"""Every command line of README.md, pasted in order into a fresh copy of the checkout, works.

What a line needs that a test cannot have, or cannot wait for, is told beside it below: nothing else
is changed. `docker compose up` stands in the text, and tests/compose runs it.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.local_triton.supervisor import free_port
from tests.export import libraries
from tests.export.weights_server import serving
from tests.photos import photo
from tests.stack import status
from tests.waiting import CHECKOUT, wait_for

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
PRETRAINED = "mixer_b16_224.miil_in21k_ft_in1k"
# What is added to a line: the line itself would take minutes.
SHORTER = {
    "loadtest compare": (
        " --concurrency 1 --shares 0.5 --seconds 0.3 --open-seconds 0.5 --warm 0.1 --rounds 1"
        " --max-rounds 1 --foreign-limit 100"
    ),
    "reference train": " --epochs 1 --batch-size 4",
}
# Of what git does not have.
LEFT_OUT = {
    ".venv",
    ".venv-triton",
    ".git",
    ".bench",
    ".arm64",
    ".hypothesis",
    ".schemathesis",
    "site",
    "runs",
}
# Networks that a test can wait for: one that is shipped, one that `compare` makes.
SMALLER = {"mixer_s16 vit_s16 bit_r50x1": "mixer_cifar10 vit_testing"}


def tracked() -> list[str]:
    """The files of the checkout; where it has no git, all but what tools have put beside them."""
    listed = None
    with contextlib.suppress(FileNotFoundError):
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=CHECKOUT, check=False, capture_output=True, text=True
        )
    if listed is not None and listed.returncode == 0:
        return [name for name in listed.stdout.split("\0") if name]
    found = []
    for parent, folders, files in os.walk(CHECKOUT):
        folders[:] = [
            name
            for name in folders
            if name not in LEFT_OUT and not name.endswith(("_cache", "__pycache__"))
        ]
        found += [os.path.relpath(Path(parent, each), CHECKOUT) for each in files if each != ".git"]
    return found


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git has, with the environments that are here: no test has PyPI."""
    folder = tmp_path_factory.mktemp("clone")
    for name in tracked():
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    sets = [path.stem for path in (CHECKOUT / "requirements").glob("*.txt")]
    for environment in (".venv", ".venv-triton"):
        (folder / environment).mkdir()
        for path in (CHECKOUT / environment).resolve().iterdir():
            (folder / environment / path.name).symlink_to(path)
        for stamp in (*sets, "torch"):
            (folder / environment / f".{stamp}").unlink(missing_ok=True)
            (folder / environment / f".{stamp}").touch()
    for number in range(8):
        path = folder / "pets/train" / ("cat", "dog")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number))
    return folder


@contextlib.contextmanager
def hub(folder: Path) -> Iterator[str]:
    """A stand-in for the hub, with a small Mixer of random weights under the published name."""
    mixer = libraries.timm().models.mlp_mixer._create_mixer(
        "mixer_b16_224", embed_dim=32, num_blocks=1, num_classes=1000
    )
    mixer.pretrained_cfg["tag"] = PRETRAINED.partition(".")[2]
    libraries.save_timm(libraries.randomized(mixer), folder)
    with serving() as weights:
        for file in ("config.json", "model.safetensors"):
            weights.hub[f"timm/{PRETRAINED}/{file}"] = (folder / file).read_bytes()
        yield weights.url


class Terminals:
    """The terminals of somebody who reads README.md: one has the server."""

    def __init__(self, clone: Path, home: Path, hub_url: str) -> None:
        self._clone, self._home, self._port = clone, home, free_port()
        self._variables = {
            "HF_ENDPOINT": hub_url,
            "HF_HOME": str(home / "huggingface"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_DATA_HOME": str(home / "data"),
            # Others may have 8000 on this machine.
            "MIXER_PORT": str(self._port),
            "MIXER_CLIENT_URL": f"http://127.0.0.1:{self._port}",
            "no_proxy": "127.0.0.1",
        }
        self._server: subprocess.Popen[bytes] | None = None

    def paste(self, line: str) -> str:
        """Run a line as it stands, but for what is told above; what it printed."""
        if line == "make serve":
            self._serve()
            return ""
        shell = line.replace("127.0.0.1:8000", f"127.0.0.1:{self._port}")
        for name, added in SHORTER.items():
            shell += added if name in line else ""
        for name, smaller in SMALLER.items():
            shell = shell.replace(name, smaller)
        done = subprocess.run(
            ["bash", "-c", shell],
            cwd=self._clone,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        # A machine that does other things at the same time makes `compare` say so, with status 3.
        right = {0, 3} if "loadtest compare" in line else {0}
        assert done.returncode in right, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return kept | self._variables

    def _serve(self) -> None:
        self.interrupt()
        with (self._home / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                ["make", "serve"],
                cwd=self._clone,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        url = f"http://127.0.0.1:{self._port}/readyz"

        def ready() -> bool:
            assert self._server is not None
            assert self._server.poll() is None, (self._home / "server.log").read_text()
            return status(url) == 200

        wait_for(ready, 240, "a server that is ready")

    def interrupt(self) -> None:
        """Ctrl-C, where a server runs."""
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGINT)
            self._server.wait(60)
            self._server = None


@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_every_command_works_in_the_order_of_the_page(
    clone: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    printed = {}
    shipped = {path.name for path in (clone / "model_repository").iterdir()}
    with hub(tmp_path_factory.mktemp("timm")) as url:
        terminals = Terminals(clone, tmp_path, url)
        try:
            for line in COMMANDS:
                printed[line] = terminals.paste(line)
        finally:
            terminals.interrupt()
    first = next(text for line, text in printed.items() if "cat.jpg" in line)
    assert '"label":"cat"' in first.replace(" ", "")
    assert any("coffee.jpg" in text for text in printed.values())  # of `server classify`
    named = next(
        text for line, text in printed.items() if "coffee.jpg'" in line or "?model=" in line
    )
    assert '"model":"mixer_imagenet"' in named.replace(" ", "")
    assert "class_" not in named
    assert (clone / "runs/my_mixer.npz").is_file()
    # What `compare` made with random weights is not among what is served.
    served = {path.name for path in (clone / "model_repository").iterdir()}
    assert served == shipped | {"mixer_imagenet", "mine"}


def test_no_link_leads_out_of_the_checkout() -> None:
    """It would lead to nothing in a clone."""
    links = [CHECKOUT / name for name in tracked() if (CHECKOUT / name).is_symlink()]
    outside = [each for each in links if not each.resolve().is_relative_to(CHECKOUT.resolve())]
    assert links
    assert not outside


def test_make_alone_lists_every_command_that_has_a_description() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    described = re.findall(r"^([^\s:#]+):.*## ", makefile, re.MULTILINE)
    listed = subprocess.run(
        ["make", "--silent"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    assert len(described) > 20
    assert re.findall(r"^  make (\S+) ", listed, re.MULTILINE) == described


def test_the_page_has_commands_and_a_picture() -> None:
    assert sum("make serve" in line for line in COMMANDS) == 2
    assert any("--pretrained" in line for line in COMMANDS)
    assert any("--onnx" in line for line in COMMANDS)
    assert not re.search(r"^    (\$ |make |curl |docker |\.venv)", README, re.MULTILINE), "no block"
    for path in re.findall(r'(?:src="|\]\()([^")#]+)', README):
        if not path.startswith("http"):
            assert (CHECKOUT / path).exists(), path


def test_the_samples_say_whose_they_are() -> None:
    sources = (CHECKOUT / "docs/samples/SOURCES.txt").read_text()
    samples = {path.name for path in (CHECKOUT / "docs/samples").glob("*.jpg")}
    assert samples
    for name in samples:
        assert f"\n{name} " in sources
    assert "CC0" in sources
