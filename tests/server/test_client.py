"""`python -m server classify`: the command against a real gateway."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server import client
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, Gateway, Guarded
from tests.waiting import CHECKOUT


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", "classify", *arguments],
        cwd=CHECKOUT,
        env=os.environ | {"COLUMNS": "120", "no_proxy": "*"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(3):
        (folder / f"{seed}.jpg").write_bytes(photo(seed, 80, 60))
    (folder / "notes.txt").write_bytes(b"hello")
    return folder


def test_a_table_of_labels(gateway: Gateway, images: Path) -> None:
    done = run(str(images / "0.jpg"), "--url", gateway.url, "--top-k", "2")
    assert done.returncode == 0, done.stderr
    assert "0.jpg" in done.stdout
    labels = (CHECKOUT / f"model_repository/{DEFAULT_MODEL}/labels.txt").read_text().split()
    assert sum(done.stdout.count(label) for label in labels) == 2
    assert done.stdout.count(" %") == 2


def test_json_of_a_pattern_and_a_folder_with_one_failure(gateway: Gateway, images: Path) -> None:
    names = (str(images / "*.jpg"), str(images), str(images / "notes.txt"))
    nothing = (str(images / "none.jpg"), str(images / "*.gif"))
    done = run(*names, *nothing, "--json", "--url", gateway.url)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["file"]).name for line in lines] == [
        *("0.jpg", "1.jpg", "2.jpg"),
        *("0.jpg", "1.jpg", "2.jpg"),
        *("notes.txt", "none.jpg", "*.gif"),
    ]
    assert [line.get("model") for line in lines] == [DEFAULT_MODEL] * 6 + [None] * 3
    labels = [[p["label"] for p in line.get("predictions", [])] for line in lines]
    assert labels[0] == labels[3]
    assert [len(found) for found in labels] == [5] * 6 + [0] * 3
    assert lines[6]["error"].startswith("415: ")
    assert lines[7]["error"] == "No such file or directory"
    assert "no image is meant" in lines[8]["error"]
    assert "3 of 9 were not classified" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_is_walked_and_a_mistake_in_a_variable_is_reported(
    gateway: Gateway, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/x.jpg").write_bytes((images / "0.jpg").read_bytes())
    done = run(str(tmp_path), "--json", "--url", gateway.url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"].endswith("deep/er/x.jpg")
    slip = run(str(tmp_path), "--url", gateway.url, MIXER_CLIENT_TOPK="3")
    assert slip.returncode == 2
    assert "MIXER_CLIENT_TOPK: no setting has this name" in slip.stderr


def test_a_key_is_taken_from_the_environment(guarded: Guarded, images: Path) -> None:
    flags = (str(images / "0.jpg"), "--url", guarded.gateway.url)
    refused = run(*flags)
    assert refused.returncode == 1
    assert "401" in refused.stdout
    assert "MIXER_CLIENT_KEY" in refused.stdout
    several = run(str(images), *flags[1:])
    assert several.stdout.count("401: ") == 1
    assert all(f"{seed}.jpg" in several.stdout for seed in range(3))
    assert "label" not in several.stdout  # nothing was classified: no empty table
    done = run(*flags, MIXER_CLIENT_KEY=guarded.key)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["*.no-such-image"], 2, "no image in *.no-such-image"),
        (["x.jpg", "--url", "localhost:8000"], 2, "should be an address such as http://"),
        (["x.jpg", "--url", "localhost:8000"], 2, "--url: should be"),
        (["x.jpg", "--top-k", "0"], 2, "greater than or equal to 1"),
        (["README.md", "--url", "http://127.0.0.1:9"], 2, "http://127.0.0.1:9 does not answer"),
        (["README.md", "--url", "http://127.0.0.1:9"], 2, "`make serve` or `docker compose up`"),
        ([], 2, "required: IMAGES"),
    ],
)
def test_what_cannot_be_asked(
    arguments: list[str],
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setenv("COLUMNS", "120")
    try:
        found: object = client.main(arguments)
    except SystemExit as end:  # of the parser of flags
        found = end.code
    assert found == status
    assert message in " ".join("".join(capfd.readouterr()).split())
