"""Files from the servers of those who give them out: resumed where the connection broke, checked, unpacked, noted.

TFDS's download manager is not used, since it begins a broken download anew: a file of the Decathlon has up to 27 GB.
"""

import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging
from tqdm import tqdm

from medjax.data.storage import archive
from medjax.data.subjects import write_index
from medjax.data.values import one_line
from medjax.files import UNFINISHED, locked, write_atomically
from medjax.types import UserError, check_choice

CHECKSUMS = "checksums.json"
CHUNK = 1 << 20
TRIES = 5  # in a row that brought nothing
WAIT = 1.0  # seconds before the second try, twice as long before each further one
TIMEOUT = 60.0  # seconds in which nothing comes
BUSY = (408, 429, 500, 502, 503, 504)
KINDS = {32: "md5", 64: "sha256"}  # by the number of digits


@dataclass(frozen=True)
class File:
    """A file at `url`, called `target` here, with the md5 or sha256 that it must have; "" where none is known beforehand.

    Of an archive, `target` is the folder that it is unpacked into.
    """

    url: str
    target: str
    checksum: str = ""


@dataclass(frozen=True)
class PublicSet:
    """A data set that anybody may download, from `home`, in `subsets` of which each is some files.

    `next_command` is given the folder of the set and the name of the subset. `subject` is a regular expression whose first
    group is, in the name of a file, whose image it is; "" where the name of a file stands for its subject.
    """

    title: str
    licence: str
    citation: str
    home: str
    subsets: Mapping[str, Sequence[File]]
    next_command: Callable[[Path, str], str]
    subject: str = ""


class _BrokenError(Exception):
    """A connection that failed; another try may go on."""


def get(public: PublicSet, folder: Path, subset: str) -> Iterator[str]:
    """Downloads a subset ("" where there is only one) into `folder`; gives its licence, what was done, and the next command.

    Raises UserError.
    """
    if not subset and len(public.subsets) == 1:
        (subset,) = public.subsets
    check_choice("--subset", subset, public.subsets)
    yield f"{public.title}, {subset}\nlicence: {public.licence}\ncite: {public.citation}\nhome: {public.home}"
    yield from get_files(public.subsets[subset], folder, public.subject)
    yield f"next: {public.next_command(folder, subset)}"


def get_files(files: Sequence[File], folder: Path, subject: str = "") -> Iterator[str]:
    """Brings `files` into `folder`, each whole or not at all, and says so; what is there already is left as it is.

    The sha256 of each is kept in `checksums.json`, and must be the same when it is downloaded again. Images whose name fits
    `subject` are listed with their subject in an `index.csv` (see `medjax.data.io`). Raises UserError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", UserError(folder, "another download is writing here; wait for it")):
        for file in files:
            yield _get(file, folder, subject)


def fetch(url: str, unfinished: Path) -> None:
    """Downloads into the file `unfinished`, from where it was broken off if the server can. Raises UserError."""
    tries = 0
    while not _is_whole(url, unfinished):
        before = _size(unfinished)
        try:
            _fetch_more(url, unfinished)
        except _BrokenError as error:
            tries = 1 if _size(unfinished) > before else tries + 1
            if tries == TRIES:
                raise UserError(url, f"{error}; run the same command again, it resumes") from error
            logging.warning("%s: %s; trying again", url, error)
            time.sleep(WAIT * 2 ** (tries - 1))


def _get(file: File, folder: Path, subject: str) -> str:
    target, notes = folder / file.target, _notes(folder / CHECKSUMS)
    noted = notes.get(file.target, {}).get("sha256", "")
    if target.exists():
        if not noted:
            raise UserError(target, "is there, but was not downloaded; move it, or name another folder")
        return f"there already: {target}"
    downloaded = folder / f"{UNFINISHED}{file.url.partition('?')[0].rpartition('/')[2]}"
    fetch(file.url, downloaded)
    note = _checked(file, downloaded, noted)
    whole = _unpacked(file, downloaded, subject) if archive.is_archive(downloaded) else downloaded
    write_atomically(folder / CHECKSUMS, json.dumps(notes | {file.target: note}, indent=1))
    os.rename(whole, target)
    _remove(downloaded)
    unknown = "" if file.checksum or noted else f"; its makers give no checksum: its sha256 is noted in {CHECKSUMS}"
    return f"written: {target}{unknown}"


def _unpacked(file: File, downloaded: Path, subject: str) -> Path:
    """The folder of what is in an archive, which is removed if it is a bad one."""
    whole = downloaded.with_name(f"{UNFINISHED}{file.target}")
    shutil.rmtree(whole, ignore_errors=True)  # what a killed process left
    try:
        archive.unpack(downloaded, whole)
        if subject:
            write_index(whole, subject)
    except BaseException as error:
        shutil.rmtree(whole, ignore_errors=True)
        if isinstance(error, ValueError):
            _remove(downloaded)
            raise UserError(file.url, f"{error}; it is removed, run the same command to download it again") from error
        raise
    return whole


def _checked(file: File, unfinished: Path, noted: str) -> dict[str, Any]:
    """The note of a file with the checksums that it should have. Raises UserError, and removes it, where it has others."""
    hashes = {kind: hashlib.new(kind) for kind in KINDS.values()}
    with unfinished.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            for hash_ in hashes.values():
                hash_.update(chunk)
    for wanted, origin in ((file.checksum, "its makers say"), (noted, f"{CHECKSUMS} has noted")):
        found = hashes[KINDS[len(wanted)]].hexdigest() if wanted else ""
        if found != wanted:
            _remove(unfinished)
            raise UserError(file.url, f"has the {KINDS[len(wanted)]} {found} where {origin} {wanted}; it is removed; run "
                            "the same command again, and if this is said again, the file has been replaced")
    return {"url": file.url, "bytes": _size(unfinished), "sha256": hashes["sha256"].hexdigest()}


def _fetch_more(url: str, unfinished: Path) -> None:
    """One connection: what is missing of the file, or all of it where it is another file now or the server has no ranges."""
    start, version = _size(unfinished), _notes(_state(unfinished)).get("version", "")
    headers = {"User-Agent": "medjax"}
    if start and version:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the file is shorter now
            _remove(unfinished)
        if error.code in (*BUSY, 416):
            raise _BrokenError(f"the server says {error.code} {error.reason}") from error
        raise UserError(url, f"the server says {error.code} {error.reason}; look for a new address at the home of the set") \
            from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(one_line(error)) from error
    with response:
        given = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if response.status == 206 and not (given and int(given[1]) == start):
            _remove(unfinished)
            raise _BrokenError("the server sends another range than was asked for")
        start, size = (start, int(given[2])) if given else (0, int(response.headers.get("Content-Length", 0)))
        if not start:
            _remove(unfinished)
            _note_state(unfinished, url, size, response.headers)
        if size - start > (free := shutil.disk_usage(unfinished.parent).free):
            raise UserError(unfinished.parent, archive.no_room(size - start, free))
        _copy(response, unfinished, start, size)
    if not size:  # the server did not say it
        if not _size(unfinished):
            raise _BrokenError("the server sends nothing")
        _note_state(unfinished, url, _size(unfinished), {})


def _copy(response: http.client.HTTPResponse, unfinished: Path, start: int, size: int) -> None:
    name = unfinished.name.removeprefix(UNFINISHED)
    with unfinished.open("ab") as file, tqdm(total=size or None, initial=start, desc=name, unit="B", unit_scale=True,
                                             dynamic_ncols=True) as bar:
        while not size or bar.n < size:
            try:  # only what comes over the net; what the disk says is no broken connection
                chunk = response.read1(min(CHUNK, size - bar.n) if size else CHUNK)  # what is there, so that little is lost
            except (OSError, http.client.HTTPException) as error:
                raise _BrokenError(one_line(error)) from error
            if not chunk:
                break
            file.write(chunk)
            bar.update(len(chunk))
    if size and _size(unfinished) < size:
        raise _BrokenError(f"the connection ended after {_size(unfinished)} of {size} bytes")


def _note_state(unfinished: Path, url: str, size: int, headers: Mapping[str, str]) -> None:
    """Notes what is being downloaded, so that no other version of the file is appended to it (RFC 9110, 13.1.5)."""
    tag = headers.get("ETag") or ""
    version = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified") or ""
    write_atomically(_state(unfinished), json.dumps({"url": url, "bytes": size, "version": version}))


def _is_whole(url: str, unfinished: Path) -> bool:
    state = _notes(_state(unfinished))
    if state and state["url"] != url:
        _remove(unfinished)
    return bool(state.get("bytes")) and _size(unfinished) == state["bytes"]


def _state(unfinished: Path) -> Path:
    return unfinished.with_name(f"{unfinished.name}.json")


def _remove(unfinished: Path) -> None:
    for path in (unfinished, _state(unfinished)):
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _notes(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise UserError(path, f"damaged: {one_line(error)}; delete it, and run the same command again") from error
