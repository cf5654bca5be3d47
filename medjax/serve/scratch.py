"""A private folder in memory for what must not outlive the server, however the server ends."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from medjax.files import locked
from medjax.types import UserError

PREFIX = "medjax-serve-"
LOCK = ".lock"
IN_MEMORY = Path("/dev/shm")
YOUNG = 60  # seconds after which a folder without a lock is that of a server that was killed as it began
# Waits for the end of the server, whose end of the pipe closes then; what still writes there dies at that time, too.
GUARD = 'cat; for i in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$1"; [ -e "$1" ] || exit 0; sleep 0.1; done'


@contextlib.contextmanager
def private_folder(base: Path | None, needed: int) -> Iterator[Path]:
    """A new folder of mode 0700 below `base`, in memory (tmpfs) if None, with room for `needed` bytes; removed at the end.

    A process beside this one removes it where this one is killed. What servers left that were killed with that process is
    removed here. Raises UserError.
    """
    base = base or default_base()
    if not base.is_dir():
        raise UserError("--scratch", f"{base} is no folder; name one, best in memory (tmpfs)")
    remove_stale(base)
    free = os.statvfs(base).f_bavail * os.statvfs(base).f_frsize
    if free < needed:
        raise UserError("--scratch", f"{base} has {free >> 20} MiB free, and the limits need {needed >> 20}; lower "
                        "--max_stored_mib and --max_unpacked_mib, or name another folder")
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    with locked(folder / LOCK, UserError(folder, "is in use")):
        guard = subprocess.Popen(["/bin/sh", "-c", GUARD, "sh", str(folder)], stdin=subprocess.PIPE,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            guard.communicate()


def default_base() -> Path:
    """Where folders are made if nothing is said: in memory where the system has a place for that."""
    return IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else Path(tempfile.gettempdir())


def remove_stale(base: Path) -> None:
    """Removes the folders of this user's servers that have ended; those of others and of running ones stay."""
    for folder in base.glob(f"{PREFIX}*"):
        try:
            state = folder.lstat()
            own = state.st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink()
            starting = not (folder / LOCK).exists() and time.time() - state.st_mtime < YOUNG
            if not own or starting:
                continue
            with locked(folder / LOCK, BlockingIOError()):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # it is another's, locked, or was removed meanwhile
            continue
