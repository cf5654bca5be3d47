"""Files written whole or not at all, and how a full disk is told."""

import errno
import os
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
