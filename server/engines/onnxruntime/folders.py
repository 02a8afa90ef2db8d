"""A model repository as folders: which models lie in it, and when one of them has changed.

In: the repository. Out: for each model a fingerprint of its files, and the version to serve, chosen
as Triton chooses.
"""

from pathlib import Path

from contracts.model_config import ModelConfig
from contracts.repository import CONFIG_NAME

# For each file: its path, size, time of the last change, and inode number; a file that replaces it
# has another number.
Fingerprint = frozenset[tuple[str, int, int, int]]


def fingerprints(repository: Path) -> dict[str, Fingerprint]:
    """The fingerprint of each model's folder, by name; a folder without a config is not a model.

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
        except OSError:  # the file was removed meanwhile; the next check finds that
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
