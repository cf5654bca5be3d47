"""Files written whole or not at all, and how a full disk is told."""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The errors of a disk, a quota or a file system that takes no more."""
UNFINISHED = ".unfinished-"
"""What the names of files begin with that are being written, or that a killed process left."""
LONGEST = 16  # characters of a suffix that are kept


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A new empty file beside `path` to be written: it is synced and gets the name `path` at the end, or is removed.

    Its name is hidden, unique, and has the suffixes of `path`, by which many writers choose the format.
    """
    unfinished = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}{''.join(path.suffixes[-2:])[-LONGEST:]}")
    try:
        unfinished.touch(exist_ok=False)
        yield unfinished
        _sync(unfinished)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # the new name too; not every file system can sync a folder
        _sync(path.parent)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a whole file (text as UTF-8) or none, and returns once it is on the disk."""
    with atomic(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def make_private(path: Path, content: bytes) -> None:
    """Makes a file that its owner alone can read, where there is none; one that another process has just made stays."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with (contextlib.suppress(FileExistsError),
              os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file):
            file.write(content)


@contextlib.contextmanager
def locked(path: Path, busy: Exception) -> Iterator[None]:
    """Holds the lock file `path`, which ends with the process, however it ends. Raises `busy` while another holds it."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A new folder of its own inside `folder` for what is to appear at once; it and what was left in it are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".medjax-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def move(source: Path, target: Path) -> Path:
    """Gives a finished file or folder its name; a folder of that name that an interrupted run left is replaced."""
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)
    return target


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
