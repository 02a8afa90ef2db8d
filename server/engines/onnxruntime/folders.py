"""A model repository as folders: which models lie in it, and when one of them has changed.

In: the repository. Out: for each model a fingerprint of its files, and the version that is served
of those that are there, chosen as Triton chooses.
"""

from pathlib import Path

from contracts.model_config import ModelConfig
from contracts.repository import CONFIG_NAME

# Of each file its path, size and time of the last change, and its number, which another file that
# takes its place has not got.
Fingerprint = frozenset[tuple[str, int, int, int]]


def fingerprints(repository: Path) -> dict[str, Fingerprint]:
    """What lies in the folder of each model, by name; a folder without a config is none.

    Raises `OSError` if the repository cannot be read.
    """
    return {
        folder.name: _fingerprint(folder)
        for folder in repository.iterdir()
        if not folder.name.startswith(".") and (folder / CONFIG_NAME).is_file()
    }


def _fingerprint(folder: Path) -> Fingerprint:
    files = set()
    for path in folder.rglob("*"):
        try:
            status = path.stat()
        except OSError:  # it has gone meanwhile; the next look tells
            continue
        size = 0 if path.is_dir() else status.st_size
        files.add((str(path.relative_to(folder)), size, status.st_mtime_ns, status.st_ino))
    return frozenset(files)


def served_version(folder: Path, config: ModelConfig) -> str | None:
    """The highest version that `version_policy` allows; by default the highest of all."""
    versions = {
        int(path.name): path.name
        for path in folder.iterdir()
        if path.is_dir() and path.name.isascii() and path.name.isdigit()
    }
    if config.version_policy.HasField("specific"):
        allowed = set(config.version_policy.specific.versions)
        versions = {number: name for number, name in versions.items() if number in allowed}
    return versions[max(versions)] if versions else None
