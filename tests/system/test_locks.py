"""requirements/locked/ says the same as the lists and the pins that it was made from."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.waiting import CHECKOUT

REQUIREMENTS = CHECKOUT / "requirements"
LOCKS = sorted((REQUIREMENTS / "locked").glob("*.txt"), key=lambda path: path.name)
# PyTorch's CPU and CUDA builds are different files of one version; the lock leaves it out.
UNLOCKED = {"torch"}


def requirements(path: Path) -> dict[str, Requirement]:
    """The requirements of a file by name, hashes aside."""
    lines = (line.partition("#")[0].rstrip(" \\") for line in path.read_text().splitlines())
    found = (Requirement(line) for line in lines if line and not line.startswith((" ", "-")))
    return {canonicalize_name(each.name): each for each in found}


PINS = {
    name: str(each.specifier)
    for name, each in requirements(REQUIREMENTS / "constraints.txt").items()
}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_has_what_its_list_names_in_the_pinned_versions(lock: Path) -> None:
    locked = requirements(lock)
    listed = requirements(REQUIREMENTS / lock.name)
    assert set(listed) - UNLOCKED <= set(locked), "`make lock` is due"
    # Triton's own environment is pinned in its list.
    pins = (
        {name: str(each.specifier) for name, each in listed.items()}
        if lock.stem == "triton"
        else PINS
    )
    assert {name: str(each.specifier) for name, each in locked.items()} == {
        name: pins[name] for name in locked
    }, "`make lock` is due"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_package_of_a_lock_has_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    for block in re.split(r"\n(?=\S)", text.partition("\n\n")[2] or text):
        if block and not block.startswith("#"):
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block
    assert "://" not in text


def test_pytorch_for_cpus_is_the_pinned_one_by_its_hashes() -> None:
    """One for each Python and machine that is supported, and no way to install it without."""
    file = REQUIREMENTS / "torch-cpu.txt"
    assert str(requirements(file)["torch"].specifier) == f"{PINS['torch']}+cpu"
    hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", file.read_text())
    assert len(set(hashes)) == len(hashes) == 4 * 2
    for name in ("Dockerfile", "Makefile"):
        text = (CHECKOUT / name).read_text()
        (line,) = re.findall(r".*(?:\\\n.*)*--find-links(?:.*\\\n)*.*torch-cpu\.txt", text)
        assert "--require-hashes" in line


def test_every_lock_that_images_and_make_use_is_there() -> None:
    used = {
        name
        for file in ("Dockerfile", "Makefile", "requirements/lock.sh")
        for name in re.findall(r"locked/(\w+)\.txt", (CHECKOUT / file).read_text())
    }
    assert used <= {lock.stem for lock in LOCKS}
    assert {"serve", "triton"} <= used
