"""Files written whole or not at all, and how a full disk is told."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The errors of a disk, a quota or a file system that takes no more."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a whole file (text as UTF-8) or none, and returns once it is on the disk."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


@contextmanager
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
