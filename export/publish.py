"""Publishing: a model folder appears in the repository whole, or not at all.

In: a repository, a name and a block of code that fills a folder. Out: `repository/NAME`.
The folder is built outside the repository, since Triton takes every folder in the repository for a
model. One rename then puts it into place. Whenever the process is killed, either the old model or
the new one is there. The next export removes the files that a killed export left beside the
repository.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from contracts.repository import CONFIG_NAME

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
# From linux/fs.h: with this flag renameat2 exchanges two paths in one step.
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


class PublishError(ValueError):
    """A model cannot be published; the message is one sentence for the user."""


def check_name(name: str) -> None:
    """Raises PublishError unless `name` can be a folder, a part of a URL and Triton's name."""
    if not _NAME.fullmatch(name):
        raise PublishError(
            f"model name {name!r}: expected a letter or digit, then up to 99 letters, digits, '_', "
            "'-' or '.'"
        )


def check_target(repository: Path, name: str) -> None:
    """Raises PublishError where publishing would fail later, or would destroy other files."""
    check_name(name)
    target = repository / name
    if repository.exists() and not repository.is_dir():
        raise PublishError(f"--repository {repository}: expected a folder, found a file")
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise PublishError(f"{target}: expected a model's folder to replace, found a file or link")
    if target.is_dir() and any(target.iterdir()) and not (target / CONFIG_NAME).is_file():
        raise PublishError(
            f"{target}: it has no {CONFIG_NAME}, so it is no model; it is not replaced"
        )


@contextlib.contextmanager
def publishing(repository: Path, name: str) -> Iterator[Path]:
    """A folder to build in, which becomes `repository/name` when the block ends without error.

    A model of this name is replaced. Raises PublishError.
    """
    check_target(repository, name)
    try:
        repository.mkdir(parents=True, exist_ok=True)
        workplace = _workplace(repository)
        prefix = f".{repository.resolve().name}.{name}."
        _remove_leftovers(workplace, prefix)
        folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".partial", dir=workplace))
    except OSError as error:
        raise PublishError(f"{repository}: cannot write there ({error.strerror})") from error
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
        _make_durable(folder)
        folder.chmod(0o755)  # mkdtemp's 0700 would hide the model from Triton's own user
        _replace(folder, repository / name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # if a model was replaced, this is the old one
        os.close(lock)


def _workplace(repository: Path) -> Path:
    """The folder that holds the repository; the repository itself where it is a mount."""
    parent = repository.resolve().parent
    same_file_system = parent.stat().st_dev == repository.stat().st_dev
    return parent if same_file_system and os.access(parent, os.W_OK) else repository


def _remove_leftovers(workplace: Path, prefix: str) -> None:
    for folder in workplace.glob(f"{prefix}*.partial"):
        lock = os.open(folder, os.O_RDONLY)
        # An export that still runs holds the lock of its folder.
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make_durable(folder: Path) -> None:
    """Flush all files to the disk before the rename, so that a power cut leaves no empty files."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _replace(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`; an old model is then at `new`."""
    try:
        new.rename(target)  # this also replaces an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _exchange(new, target)


def _exchange(new: Path, target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        paths = os.fsencode(new), os.fsencode(target)
        if not libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE):
            return
        if ctypes.get_errno() not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise OSError(ctypes.get_errno(), "cannot replace the model", str(target))
    # Systems and file systems without an exchange need two renames. If the second one fails, the
    # old model is put back.
    aside = new.with_name(f"{new.name}.old")
    target.rename(aside)
    try:
        new.rename(target)
    except OSError:
        aside.rename(target)
        raise
    aside.rename(new)
