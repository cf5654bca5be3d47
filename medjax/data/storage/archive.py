"""Tar and zip archives that others made: unpacked into a folder that none of their files can leave."""

import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from medjax.data.values import one_line
from medjax.types import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
LEFT_OUT = re.compile(r"(^|/)(\._[^/]*|\.DS_Store|__MACOSX/.*)$")  # what macOS adds to archives
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


@dataclass(frozen=True)
class _Entry:
    name: str
    size: int
    is_file: bool
    open: Callable[[], IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """Whether the file's name is that of an archive."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(path: Path, folder: Path) -> None:
    """Writes the files of an archive into the new folder `folder`; a folder that has all of them in it is left out.

    Raises ValueError for an archive that is damaged, that has links or devices, a file twice, or a file with a place
    outside; UserError where the disk has less room than its files take.
    """
    try:
        with zipfile.ZipFile(path) if path.suffix.lower() == ".zip" else tarfile.open(path) as opened:
            entries = [entry for entry in _entries(opened) if not LEFT_OUT.search(entry.name)]
            for entry in entries:
                parts = entry.name.split("/")
                if not entry.is_file or re.search(r"[\\:\0]", entry.name) or not {"", ".", ".."}.isdisjoint(parts):
                    raise ValueError(f"has {entry.name!r}, which is no plain file below a folder")
            if not entries:
                raise ValueError("has no files")
            needed = sum(entry.size for entry in entries)
            if needed > (free := shutil.disk_usage(path.parent).free):
                raise UserError(path.parent, no_room(needed, free))
            tops = {entry.name.partition("/")[::2] for entry in entries}
            alone = len({top for top, _ in tops}) == 1 and all(below for _, below in tops)
            folder.mkdir()
            for entry in entries:
                _write(entry, folder / (entry.name.partition("/")[2] if alone else entry.name))
    except DAMAGE as error:
        raise ValueError(f"is damaged, or no archive: {one_line(error)}") from error


def no_room(needed: int, free: int) -> str:
    """What is wrong with a disk that has too little room."""
    return f"{needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free; make room and run the same command again"


def _write(entry: _Entry, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        written = target.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"has {entry.name!r} twice") from error
    opened = entry.open()
    assert opened is not None  # tarfile opens files, and others are refused
    with opened, written:
        shutil.copyfileobj(opened, written, 1 << 20)
        if written.tell() != entry.size:
            raise ValueError(f"has {written.tell()} bytes of {entry.size} of {entry.name!r}")


def _entries(opened: zipfile.ZipFile | tarfile.TarFile) -> Iterator[_Entry]:
    """Its entries without the folders; names as in POSIX, without a leading "./"."""
    if isinstance(opened, tarfile.TarFile):
        for member in opened:
            if not member.isdir():
                yield _Entry(member.name.removeprefix("./"), member.size, member.isfile(),
                             partial(opened.extractfile, member))
    else:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if not info.is_dir():
                yield _Entry(info.filename.removeprefix("./"), info.file_size, kind in (0, stat.S_IFREG),
                             partial(opened.open, info))
