"""Weights from Hugging Face's hub, or from the mirror that HF_ENDPOINT names.

In: a repository (ORGANISATION/NAME, or with @REVISION) of timm's or transformers' kind. Out: a
folder with its configuration and `model.safetensors`. huggingface_hub downloads and caches the
files (HF_HOME), and uses no network if HF_HUB_OFFLINE is set. For a plain download it checks only
the size. So this module compares the content of a file with the hub's digest each time before the
file is used.
"""

import contextlib
import hashlib
import json
import logging
import re
import time
from pathlib import Path

import httpx2
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from export.options import UsageError
from export.pretrained.failure import DownloadError, UnreachableError
from export.progress import note, step

# The library would log a line for each retry.
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)

CONFIG, WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
# The hub names a large file by the SHA-256 of its content, a small one as git does.
_SHA256, _GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
# A partial download that is older than this was abandoned; an active one is written all the time.
_ABANDONED_SECONDS = 3600.0


def fetch_repository(name: str) -> Path:
    """The folder of a repository, with the files that export reads; raises DownloadError."""
    repository, _, revision = name.partition("@")
    with step(f"asking {constants.ENDPOINT}"):
        config = _fetch(repository, CONFIG, revision or "main")
    # The folder has the name of the commit; the other files are taken from the same commit.
    commit = config.parent.name
    if "model_type" in _object(config):
        with contextlib.suppress(_AbsentError):
            _fetch(repository, PREPROCESSOR, commit)
    weights = _fetch(repository, WEIGHTS, commit)
    return weights.parent


class _AbsentError(DownloadError):
    """The repository exists, but has no such file."""


def _fetch(repository: str, file: str, revision: str) -> Path:
    """Download one file and check it against the hub's digest; returns its path."""
    try:
        url = hf_hub_url(repository, file, revision=revision)
    except HFValidationError:
        raise UsageError(
            f"--pretrained {repository}: expected ORGANISATION/NAME, as the hub has it"
        ) from None
    try:
        if not constants.HF_HUB_OFFLINE and not _is_kept(repository, file, revision):
            # This call fails at once if the hub is not reachable; the library's download would
            # retry for half a minute.
            get_hf_file_metadata(url)
        path = Path(hf_hub_download(repository, file, revision=revision))
        _remove_abandoned(path.parents[2] / "blobs")
        _check(path, url)
    except RemoteEntryNotFoundError:
        hint = "; pickled weights are never loaded" if file == WEIGHTS else ""
        raise _AbsentError(f"{url}: {repository} is there, but has no such file{hint}") from None
    except GatedRepoError:
        raise DownloadError(
            f"{url}: accept the terms of {repository} on its page, and set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise DownloadError(
            f"{url}: the hub has no {repository}, or you may not read it: set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise DownloadError(f"{url}: {repository} has no revision {revision!r}") from None
    except FileMetadataError:
        raise DownloadError(
            f"{url}: what answers there is no hub; HF_ENDPOINT is {constants.ENDPOINT}"
        ) from None
    except LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            why: object = "HF_HUB_OFFLINE is set, and it has not been downloaded before"
        else:
            why = error.__cause__ or error
        raise UnreachableError(url, why) from None
    except (OSError, httpx2.HTTPError) as error:
        raise UnreachableError(url, error) from None
    return path


def _is_kept(repository: str, file: str, revision: str) -> bool:
    return isinstance(try_to_load_from_cache(repository, file, revision=revision), str)


def _check(path: Path, url: str) -> None:
    """Raises DownloadError, and removes the file, if its digest is not the hub's."""
    expected = _expected_digest(path, url)
    if _SHA256.fullmatch(expected):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    elif _GIT.fullmatch(expected):
        content = path.read_bytes()
        head = f"blob {len(content)}\0".encode()
        found = hashlib.sha1(head + content, usedforsecurity=False).hexdigest()
    else:
        raise DownloadError(
            f"{url}: {constants.ENDPOINT} names no digest of it ({expected!r}), so it cannot be "
            "checked and is not used; a file that you trust will do: --checkpoint PATH"
        )
    if found == expected:
        return
    # Remove both the link in the snapshot and the file that it points to.
    with contextlib.suppress(OSError):
        path.resolve().unlink()
    path.unlink(missing_ok=True)
    raise DownloadError(
        f"{url}: expected the digest {expected}, found {found}: what came is not what was "
        "published; it has been removed, and the next run downloads it again"
    )


def _expected_digest(path: Path, url: str) -> str:
    """The hub's digest at the time of the download: the cache uses it as the content's name."""
    if path.is_symlink():
        return path.readlink().name
    return get_hf_file_metadata(url).etag or ""


def _remove_abandoned(blobs: Path) -> None:
    """Remove partial files of killed downloads: the library neither resumes nor removes them."""
    for part in blobs.glob("*.incomplete"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                part.unlink()
                note(f"removed {part.name}, which a killed download had left")


def _object(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}  # the code that reads the folder reports the error
    return found if isinstance(found, dict) else {}
