"""Files are unpacked once: into plain arrays that every later run maps, whatever they were compressed with.

A study's folder is named by a hash of its files (path, time, size) and of the version of this layout; it holds one
`.npy` per array and an `index.json`. It is written under another name and renamed when it is whole, so a half-written
one is never used.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from medjax.data.statistics import foreground
from medjax.data.storage import record_json
from medjax.data.storage.mapped import Mapped, mapped
from medjax.data.values import one_line
from medjax.types import Record, UserError

VERSION = 2
DAY = 86400.0


class Unread(Protocol):
    """What can be unpacked: a `medjax.data.io.Study`, a part of a prepared data set."""

    paths: tuple[Path, ...]
    id: str
    subject: str

    def read(self) -> Iterable[Record]: ...


def unpack(studies: Sequence[Unread], folder: str | Path = "") -> list[Record]:
    """The records of `studies`, mapped from the cache in `folder` (default `~/.cache/medjax`); new ones are read first.

    Raises UserError for what can't be read, or written.
    """
    root = Path(folder).expanduser() if folder else default_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        _clear_remains(root)
    except OSError as error:
        raise UserError(root, f"can't be used as a cache: {error.strerror}; set another folder") from error
    homes = [root / _key(study) for study in studies]
    found = [_load(home, study) for home, study in zip(homes, studies, strict=True)]
    missing = [i for i, records in enumerate(found) if records is None]
    for i in tqdm(missing, "unpacking", unit="study", leave=False, disable=not missing):
        _write(homes[i], studies[i])
        found[i] = _load(homes[i], studies[i])
        if found[i] is None:
            raise UserError(homes[i], f"what was unpacked from {studies[i].paths[0]} can't be read back; is the disk sound?")
    return [record for records in found for record in records]


def default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "medjax"


def _key(study: Unread) -> str:
    try:
        facts = [(str(path.resolve()), stat.st_mtime_ns, stat.st_size) for path in study.paths for stat in [path.stat()]]
    except OSError as error:
        raise UserError(error.filename, f"can't be read ({error.strerror}), but was there a moment ago") from error
    return hashlib.sha256(json.dumps([VERSION, facts]).encode()).hexdigest()[:32]


def _write(home: Path, study: Unread) -> None:
    try:
        name = f".partial-{home.name}-"
        with tempfile.TemporaryDirectory(prefix=name, dir=home.parent, ignore_cleanup_errors=True) as made:
            whole = Path(made, "whole")
            whole.mkdir()
            entries = [_write_record(whole, number, record, study) for number, record in enumerate(study.read())]
            (whole / "index.json").write_text(json.dumps(entries), encoding="utf-8")
            shutil.rmtree(home, ignore_errors=True)
            os.rename(whole, home)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # then another run has just unpacked the same
            raise UserError(home.parent, f"unpacking {study.paths[0]} failed: {error.strerror or one_line(error)}; make "
                            "room, or set another cache folder") from error


def _write_record(folder: Path, number: int, record: Record, study: Unread) -> dict[str, Any]:
    def put(name: str, array: np.ndarray) -> record_json.Place:
        place = mapped(array)
        if place is not None:  # it lies in a file as it is, a .npy: it is not copied
            return vars(place)
        path = folder / f"{number:04d}_{name}.npy"
        np.save(path, array)
        return vars(mapped(np.load(path, mmap_mode="r"))) | {"filename": path.name}

    noted = record_json.entry(replace(record, extras=record.extras | {"foreground": foreground(record)}), put)
    # What the study knows of itself is not kept: the same files may be found from another folder, or told apart anew.
    return noted | {"frame": record.id.removeprefix(study.id) if record.id.startswith(study.id) else None,
                    "subject": None if record.subject == study.subject else record.subject}


def _load(home: Path, study: Unread) -> list[Record] | None:
    """The records of a study's folder; None where there is none, or a damaged one."""
    try:
        entries = json.loads((home / "index.json").read_text(encoding="utf-8"))
        return [_load_record(home, entry, study) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _load_record(home: Path, noted: dict[str, Any], study: Unread) -> Record:
    def find(_: str, place: record_json.Place) -> Mapped:
        array = Mapped(str(home / place["filename"]), place["offset"], place["code"], tuple(place["shape"]))
        if os.stat(array.filename).st_size < array.offset + array.size * array.dtype.itemsize:
            raise ValueError(f"{array.filename} is cut off")
        return array

    name = noted["id"] if noted["frame"] is None else study.id + noted["frame"]
    return replace(record_json.record(noted, find), id=name, subject=noted["subject"] or study.subject)


def _clear_remains(root: Path) -> None:
    """Removes what runs that were killed while writing left behind."""
    for partial in root.glob(".partial-*"):
        if time.time() - partial.stat().st_mtime > DAY:
            shutil.rmtree(partial, ignore_errors=True)
