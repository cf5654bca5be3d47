"""Prepared data sets, written shard by shard: in processes or by Beam, going on after a kill, with checksums.

TFDS's own writer starts over when it is interrupted. Here each shard is written under another name, checked, synced,
renamed and noted with a digest of what it is made of, in a hidden folder beside; a build that comes again makes only what is
missing or has changed. The folder gets its own name last, so a set is whole or it is none.
"""

import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import pickle
import shlex
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tqdm import tqdm

from medjax.data.storage import shard_reader
from medjax.data.storage.builder import Builder, Shard
from medjax.data.storage.names import salt_file, salt_of
from medjax.data.storage.tfds_layout import MANIFEST, NAMES, manifest, record, unfinished
from medjax.data.values import one_line
from medjax.files import UNFINISHED, atomic, locked, write_atomically
from medjax.types import UserError

OPTIONS = "group_size:1,zstd:1"  # each example by itself, as readers take them at random; half the time of the default
ENGINES = ("processes", "beam")
WORK = "work"
NOTES = ".notes"
GIVEN_ELSEWHERE = ("source", "layout", "salt", "data_dir")  # arguments that other parts of a digest tell

Note = dict[str, Any]


def build(builder: Builder, folder: Path, processes: int = 1, engine: str = "processes", beam_options: str = "") -> Note:
    """Writes `folder`, shard by shard, or what it lacks; returns its manifest.

    The engine "beam" runs the shards as an Apache Beam pipeline, on the machines that `beam_options` name; all must see
    the source and `folder`. Raises UserError: for another build in the folder, for what can't be read or written.
    """
    shards = builder.shards
    with _held(folder) as beside:
        if not (builder.nobody or builder.salt):
            builder.salt = _salt(folder)
        digest = _digest([_digest_of(builder, shard) for shard in shards])
        work = _workplace(folder, beside, digest)
        notes = _notes(work)
        missing = [shard for shard in shards if not _is_there(builder, shard, work, notes)]
        if missing or work != folder:
            if work == folder:  # what is no longer whole is built on
                work = beside / WORK
                shutil.rmtree(work, ignore_errors=True)
                os.rename(folder, work)
            (work / NOTES).mkdir(exist_ok=True)
            for remains in work.glob(f"{UNFINISHED}*"):
                remains.unlink()
            written = _in_processes(builder, missing, work, processes) if engine == "processes" else \
                _on_beam(builder, missing, work, beam_options)
            total, left = (sum(len(shard.items) for shard in some) for some in (shards, missing))
            with tqdm(total=total, initial=total - left, desc="building", unit="study", dynamic_ncols=True) as bar:
                for shard, note in written:
                    notes[note["file"]] = note
                    bar.update(len(shard.items))
            _finish(builder, work, digest, notes)
            shutil.rmtree(work / NOTES, ignore_errors=True)
            os.rename(work, folder)
        shutil.rmtree(beside)
    return manifest(folder)


def write_shard(builder: Builder, shard: Shard, folder: Path) -> Note:
    """Writes one shard, its index and its note: the file's name, bytes, sha256, how many examples. Raises UserError."""
    target = folder / shard.filename(builder.name)
    features = builder.info.features
    entries: list[shard_reader.Entry] = []
    try:
        with atomic(target) as unfinished:
            writer = ArrayRecordWriter(str(unfinished), OPTIONS)
            try:
                for _, example in builder.examples(shard):
                    stored = features.serialize_example(example)
                    writer.write(stored)
                    entries.append(shard_reader.entry(record(folder, shard.split, len(entries), features, stored)))
            finally:
                writer.close()
            note = {"file": target.name, "split": shard.split, "examples": len(entries), "bytes": unfinished.stat().st_size,
                    "sha256": _sha256(unfinished), "digest": _digest_of(builder, shard)}
            if ArrayRecordReader(str(unfinished)).num_records() != len(entries):
                raise OSError(f"{target} was not written whole")
            write_atomically(shard_reader.index_of(target), shard_reader.dumps(entries))
        _note(folder / NOTES / f"{target.name}.json", note)
        return note
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError, for a full disk too
        raise UserError(target, f"can't be written: {one_line(error)}; make room and run the same command again") from error


def verify(folder: Path) -> Note:
    """The manifest of a set whose every file was read and has its checksum. Raises UserError for the first that has not."""
    noted = manifest(folder)
    if not noted:
        raise UserError(folder, f"has no {MANIFEST}; build it with python -m medjax.build")
    for name, note in tqdm(noted["files"].items(), "verifying", unit="file", leave=False):
        path = folder / name
        if not path.is_file():
            raise UserError(path, "is missing; run the command that builds the set again, and it is made anew")
        if path.stat().st_size != note["bytes"] or _sha256(path) != note["sha256"]:
            raise UserError(path, "fails its checksum; delete it and run the command that builds the set again")
    return noted


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[Path]:
    """The place beside `folder` where it is built, for one build at a time; what the disk says is one line."""
    beside = unfinished(folder)
    try:
        beside.mkdir(parents=True, exist_ok=True)
        busy = UserError(folder, "another build is writing here; wait for it, or name another folder")
        with locked(beside / "lock", busy):
            try:
                yield beside
            finally:
                if not any(itertools.chain(beside.glob(f"*/{NOTES}/*.json"), beside.glob(f"*/{MANIFEST}"))):
                    shutil.rmtree(beside, ignore_errors=True)  # nothing there to go on from
                    if not folder.exists():
                        salt_file(folder).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(folder, f"can't be written: {one_line(error)}; make room and run the same command again") from error


def _salt(folder: Path) -> bytes:
    """The salt of the names in `folder`; a new one for a new set. Raises UserError where that of a finished set is gone."""
    if folder.exists() and not salt_file(folder).exists():
        raise UserError(salt_file(folder), f"is gone, and the names in {folder} are hashes with it; restore it, or name "
                        "another folder")
    return salt_of(folder)


def _workplace(folder: Path, beside: Path, digest: str) -> Path:
    """Where this build is: `folder` if it was finished, else a place of its own. Raises UserError if another is there."""
    if not folder.exists():
        (beside / WORK).mkdir(exist_ok=True)
        return beside / WORK
    if manifest(folder).get("digest") != digest:
        raise UserError(folder, "is there already, of other files or other options; name another folder, or delete it")
    return folder


def _digest_of(builder: Builder, shard: Shard) -> str:
    """What the examples of a shard follow from: the builder's options, the layout, the names and sizes of the files."""
    given = {key: repr(value) for key, value in builder.arguments.items() if key not in GIVEN_ELSEWHERE}
    name = builder.naming  # a digest of the names themselves would let guesses be tested
    items = [(name(item.id), name(item.subject), [(name(file), size) for file, size in item.files]) for item in shard.items]
    return _digest([shard.filename(builder.name), str(builder.VERSION), sorted(given.items()), builder.layout, items])


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _notes(work: Path) -> dict[str, Note]:
    """What was written of a build, by file name."""
    found = {name: {"file": name, **note} for name, note in manifest(work).get("files", {}).items()}
    return found | {path.stem: _read_note(path) for path in (work / NOTES).glob("*.json")}


def _is_there(builder: Builder, shard: Shard, work: Path, notes: dict[str, Note]) -> bool:
    path = work / shard.filename(builder.name)
    note = notes.get(path.name, {})
    return (note.get("digest") == _digest_of(builder, shard) and path.is_file() and path.stat().st_size == note["bytes"]
            and shard_reader.index_of(path).is_file())


def _finish(builder: Builder, folder: Path, digest: str, notes: dict[str, Note]) -> None:
    """Clears the folder of what is no part of the set, writes what TFDS reads a set by, and the manifest last."""
    ordered = [notes[shard.filename(builder.name)] for shard in builder.shards]
    known = {MANIFEST, *(note["file"] for note in ordered)}
    indices = {shard_reader.index_of(folder / note["file"]) for note in ordered}
    for path in folder.iterdir():
        if path.is_file() and path.name not in known and path not in indices:  # of a build begun with other options
            path.unlink()
    parts = {note["split"]: [n for n in ordered if n["split"] == note["split"]] for note in ordered}
    _write_metadata(builder, folder, parts)
    ordered += [{"file": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)}
                for path in sorted(folder.iterdir()) if path.is_file() and path.name not in known]
    _note(folder / MANIFEST, {
        "name": builder.name, "digest": digest, NAMES: "plain" if builder.nobody else "pseudonyms",
        "splits": {name: {"examples": _sum(part, "examples"), "subjects": _subjects(builder, name, part),
                          "shards": len(part), "bytes": _sum(part, "bytes")} for name, part in parts.items()},
        "classes": list(builder.classes), "config": builder.config,
        "files": {note["file"]: {key: value for key, value in note.items() if key != "file"} for note in ordered}})


def _write_metadata(builder: Builder, folder: Path, parts: dict[str, list[Note]]) -> None:
    """`dataset_info.json`, `features.json` and what goes with them, by TFDS."""
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=builder.name, filetype_suffix="array_record",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
    builder.info.set_splits(tfds.core.splits.SplitDict([
        tfds.core.SplitInfo(name=name, shard_lengths=[note["examples"] for note in part], num_bytes=_sum(part, "bytes"),
                            filename_template=template.replace(split=name)) for name, part in parts.items()]))
    builder.info.write_to_directory(folder)


def _sum(notes: Sequence[Note], key: str) -> int:
    return sum(note[key] for note in notes)


def _subjects(builder: Builder, split: str, notes: Sequence[Note]) -> int:
    subjects = {item.subject for shard in builder.shards if shard.split == split for item in shard.items}
    return _sum(notes, "examples") if "" in subjects else len(subjects)


def _in_processes(builder: Builder, shards: Sequence[Shard], folder: Path, processes: int) -> Iterator[tuple[Shard, Note]]:
    if processes <= 1 or len(shards) <= 1:
        for shard in shards:
            yield shard, write_shard(builder, shard, folder)
        return
    sent = pickle.dumps(builder)
    context = multiprocessing.get_context("spawn")  # jax has threads, which a fork would lose
    with ProcessPoolExecutor(min(processes, len(shards)), context, _end_with_parent) as pool:
        try:
            waiting = {pool.submit(_write_sent, shard, sent, folder): shard for shard in shards}
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool:
            raise UserError(folder, "a process of the build was killed, for want of memory perhaps; run the command again "
                            "with fewer --processes") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _on_beam(builder: Builder, shards: Sequence[Shard], folder: Path, options: str) -> Iterator[tuple[Shard, Note]]:
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UserError("--engine", "beam needs a package that is not installed: pip install apache-beam") from None
    sent = pickle.dumps(builder)
    for remains in (folder / NOTES).glob("*.error"):
        remains.unlink()
    try:
        with beam.Pipeline(options=PipelineOptions(shlex.split(options))) as pipeline:
            _ = pipeline | beam.Create(shards) | beam.Reshuffle() | beam.Map(_write_or_say, sent, folder)
    except RuntimeError as error:
        raise UserError("--engine", f"the Beam pipeline failed: {one_line(error)}") from error
    errors = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / NOTES).glob("*.error"))]
    for remains in (folder / NOTES).glob("*.error"):  # they name files
        remains.unlink()
    if errors:
        raise UserError(*errors[0])
    for shard in shards:
        yield shard, _read_note(folder / NOTES / f"{shard.filename(builder.name)}.json")


def _write_or_say(shard: Shard, sent: bytes, folder: Path) -> None:
    """A runner would try a shard that can't be read again and again: what is wrong is noted, and the others go on."""
    try:
        _write_sent(shard, sent, folder)
    except UserError as error:
        _note(folder / NOTES / f"{shard.filename(_builder(sent).name)}.error", error.args)


def _write_sent(shard: Shard, sent: bytes, folder: Path) -> Note:
    return write_shard(_builder(sent), shard, folder)


@lru_cache(1)
def _builder(sent: bytes) -> Builder:
    return pickle.loads(sent)


def _end_with_parent() -> None:
    """A process of the pool whose parent was killed would wait for work for ever, or write on beside the next build.

    Ctrl-C is the parent's: the shards that are being written are finished.
    """
    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None  # a pool has one
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note(path: Path, values: Note | tuple) -> None:
    write_atomically(path, json.dumps(values, indent=1))


def _read_note(path: Path) -> Note:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(path, f"damaged: {one_line(error)}; delete it and run the same command again") from error
