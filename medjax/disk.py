"""Files written whole or not at all, and how a full disk is told."""

import errno
import os
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The errors of a disk, a quota or a file system that takes no more."""


def write_atomically(path: Path, text: str) -> None:
    """Writes a whole file or none, and returns once it is on the disk."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
