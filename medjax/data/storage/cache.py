"""Files are unpacked once: into plain arrays that every later run maps, whatever they were compressed with.

A study's folder is named by a hash of its files (path, time, size) and of the version of this layout; it holds one `.npy`
per array and an `entry.json`, neither with the name of a file or patient. It is written under another name and renamed
when it is whole, so a half-written one is never used, and one that is sound is never replaced. Processes, also of several
hosts that share the cache, divide the studies among them: each locks what it unpacks, and goes on with the next where
another has the lock.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from absl import logging
from tqdm import tqdm

from medjax.data.statistics import foreground
from medjax.data.storage import record_json
from medjax.data.storage.mapped import Mapped, Stored, mapped
from medjax.data.values import one_line
from medjax.types import Record, UserError

VERSION = 3
DAY = 86400.0
ENTRY = "entry.json"
LOCKS = ".locks"  # 256 files, one for all studies whose hash begins with its name; they are never deleted
PARTIAL = ".partial-"


class _Lock(Enum):
    """Who may unpack a study: this process, another, or any, where the file system has no locks."""

    MINE = 1
    OTHERS = 2
    UNKNOWN = 3


class Unread(Protocol):
    """What can be unpacked: a `medjax.data.io.Study`, a shard of a prepared data set."""

    @property
    def paths(self) -> tuple[Path, ...]: ...

    @property
    def id(self) -> str: ...

    @property
    def subject(self) -> str: ...

    @property
    def series(self) -> str: ...

    def read(self) -> Iterable[Record]: ...


@dataclass(frozen=True)
class _Home:
    """The folder of a study in the cache; `version` tells its files' sizes and times."""

    folder: Path
    study: Unread
    version: str

    @classmethod
    def of(cls, root: Path, study: Unread) -> "_Home":
        try:
            facts = [(str(path.resolve()), stat.st_mtime_ns, stat.st_size)
                     for path in study.paths for stat in [path.stat()]]
        except OSError as error:
            raise UserError(error.filename, f"can't be read ({error.strerror}), but was there a moment ago") from error
        return cls(root / _digest([VERSION, facts]), study, _digest([fact[1:] for fact in facts]))


def unpack(studies: Sequence[Unread], folder: str | Path = "") -> list[Record]:
    """The records of `studies`, mapped from the cache in `folder` (default `~/.cache/medjax`); new ones are read first.

    Raises UserError for what can't be read, or written.
    """
    root = _opened(Path(folder).expanduser() if folder else default_folder())
    homes = [_Home.of(root, study) for study in studies]
    found = [_load(home) for home in homes]
    missing = [number for number, records in enumerate(found) if records is None]
    _say_uneven([record for records in found for record in records or ()])
    with tqdm(total=len(missing), desc="unpacking", unit="study", leave=False, disable=not missing) as bar:
        taken: list[int] = []
        for wait, numbers in ((False, missing), (True, taken)):  # at last, those that others were unpacking
            for number in numbers:
                with _locked(homes[number].folder, wait) as lock:
                    if lock is _Lock.OTHERS:
                        taken.append(number)
                        continue
                    found[number] = _load(homes[number]) or _unpacked(homes[number])
                    bar.update()
    return [record for records in found for record in records or ()]


def _say_uneven(records: Sequence[Record]) -> None:
    """Says again of records that lie in the cache what was said when they were read: their slices have unequal gaps."""
    count = sum("slice_positions_mm" in record.extras for record in records)
    if count:
        logging.warning("%d of %d volumes in the cache have unequal slice gaps; their affines have the mean gap, "
                        "slice_positions_mm the places as measured", count, len(records))


def default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "medjax"


def _opened(root: Path) -> Path:
    """The cache's folder, made where there is none; only its owner may look inside."""
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if root == default_folder() and root.stat().st_mode & 0o077:
            root.chmod(0o700)
        (root / LOCKS).mkdir(exist_ok=True, mode=0o700)
        _clear_remains(root)
    except OSError as error:
        raise UserError(root, f"can't be used as a cache: {error.strerror}; set another folder") from error
    return root


@contextmanager
def _locked(folder: Path, wait: bool) -> Iterator[_Lock]:
    """Whether this process may unpack into `folder`; the lock ends with the process, however it ends.

    On a file system without locks all may: then the first to finish stays, and the others have worked in vain.
    """
    path = folder.parent / LOCKS / folder.name[:2]
    try:
        file = path.open("ab")
    except OSError as error:
        raise UserError(path, f"can't be written: {error.strerror}; set another cache folder") from error
    with file:
        held = _Lock.MINE
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            held = _Lock.OTHERS if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else _Lock.UNKNOWN
        yield held


def _unpacked(home: _Home) -> list[Record]:
    """Reads a study and writes its folder. Raises UserError."""
    _write(home)
    found = _load(home)
    if found is None:
        raise UserError(home.folder, f"what was unpacked from {home.study.paths[0]} can't be read back; is the disk sound?")
    return found


def _write(home: _Home) -> None:
    folder, prefix = home.folder, f"{PARTIAL}{home.folder.name}-"
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent, ignore_cleanup_errors=True) as made:
            whole = Path(made, "whole")
            whole.mkdir(mode=0o700)
            entries = [_write_record(whole, number, record, home) for number, record in enumerate(home.study.read())]
            (whole / ENTRY).write_text(json.dumps(entries), encoding="utf-8")
            if _load(home) is not None:  # without locks, another was faster
                return
            with suppress(FileNotFoundError):  # what is there is damaged
                os.rename(folder, Path(made, "damaged"))
            os.rename(whole, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # then another was faster in the last moment
            why = error.strerror or one_line(error)
            raise UserError(folder.parent, f"unpacking {home.study.paths[0]} failed: {why}; make room, or set another cache "
                            "folder") from error


def _write_record(folder: Path, number: int, record: Record, home: _Home) -> dict[str, Any]:
    study = home.study
    sources = [str(path.resolve()) for path in study.paths]

    def put(name: str, array: np.ndarray | Stored) -> record_json.Place:
        place = mapped(array)
        if isinstance(place, Mapped) and place.filename in sources:  # a .npy, which lies there as it is, is not copied
            return {"source": sources.index(place.filename)} | _layout(place)
        path = folder / f"{number:04d}_{name}.npy"
        np.save(path, np.ascontiguousarray(array))
        return {"file": path.name} | _layout(cast(Mapped, mapped(np.load(path, mmap_mode="r"))))

    noted = record_json.entry(replace(record, extras=record.extras | {"foreground": foreground(record)}), put)
    # What the study knows of itself is not kept: it may name a patient, and the same files may be found from elsewhere.
    own = record.id.startswith(study.id)
    return noted | {"id": None if own else record.id, "frame": record.id.removeprefix(study.id) if own else None,
                    "subject": None if record.subject == study.subject else record.subject}


def _layout(array: Mapped) -> record_json.Place:
    return {"offset": array.offset, "code": array.code, "shape": array.shape}


def _load(home: _Home) -> list[Record] | None:
    """The records of a study's folder; None where there is none, or a damaged one."""
    try:
        entries = json.loads((home.folder / ENTRY).read_text(encoding="utf-8"))
        return [_load_record(home, entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _load_record(home: _Home, noted: dict[str, Any]) -> Record:
    study = home.study

    def find(_: str, place: record_json.Place) -> Mapped:
        path = home.folder / place["file"] if "file" in place else study.paths[place["source"]].resolve()
        array = Mapped(str(path), place["offset"], place["code"], tuple(place["shape"]), home.version)
        if os.stat(array.filename).st_size < array.offset + array.size * array.dtype.itemsize:
            raise ValueError(f"{array.filename} is cut off")
        return array

    name = noted["id"] if noted["frame"] is None else study.id + noted["frame"]
    return replace(record_json.record(noted, find), id=name, subject=noted["subject"] or study.subject, series=study.series)


def _clear_remains(root: Path) -> None:
    """Removes what processes that were killed while writing left behind: nobody has its lock, or it is a day old."""
    for partial in root.glob(f"{PARTIAL}*"):
        with suppress(FileNotFoundError), _locked(root / partial.name.removeprefix(PARTIAL), wait=False) as lock:
            old = time.time() - partial.stat().st_mtime > DAY
            if lock is _Lock.MINE or (lock is _Lock.UNKNOWN and old):
                shutil.rmtree(partial, ignore_errors=True)


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
