"""Prepared data sets read where they lie: an index says what each example is, its arrays are read when they are looked at.

The index of a shard, written with it by `storage.shard_writer`, lies beside it: gzipped JSON, a few dozen bytes an example.
It is all that is read before the first batch.
"""

import gzip
import json
import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.storage import record_json, tfds_layout
from medjax.data.storage.mapped import OPEN, Stored
from medjax.data.values import one_line
from medjax.types import Record, UserError

KEPT = 4  # examples that are decoded at a time: what is read of one (image, mask, points, slices) is read in a row
OPTIONS = "readahead_buffer_size:0,max_parallelism:0,footer_prefetch_bytes:0"  # no more than the example that is asked for
BUFFER = 1 << 15

Entry = dict[str, Any]


@dataclass(frozen=True)
class InShard(Stored):
    """The array `name` of example `number` of a shard."""

    shard: str
    number: int
    name: str
    code: str
    shape: tuple[int, ...]

    @property
    def version(self) -> str:
        return _sha256(self.shard)

    def whole(self) -> np.ndarray:
        record = _example(self.shard, self.number)
        array = record.image if self.name == "image" else record.extras.get(self.name)
        if array is None or (array.shape, array.dtype) != (self.shape, self.dtype):
            raise UserError(self.shard, f"its example {self.number} is another than when the run began")
        return array


def index_of(shard: Path) -> Path:
    """Where the index of a shard lies."""
    return shard.with_name(f"{shard.name}.index")


def entry(record: Record) -> Entry:
    """What the index of a shard has of an example."""
    return record_json.entry(record, lambda _, array: {"code": array.dtype.str, "shape": array.shape})


def dumps(entries: Sequence[Entry]) -> bytes:
    """The index of a shard's examples, in order; the same for the same examples."""
    return gzip.compress(json.dumps(entries).encode(), mtime=0)


def records(folder: Path) -> list[Record]:
    """The records of a prepared data set, their arrays in its shards. Raises UserError."""
    parts = tfds_layout.parts(folder)
    found = {part.paths[-1]: index_of(part.paths[-1]) for part in parts}
    if not any(path.exists() for path in found.values()):
        raise UserError(folder, "has no index, so it can't be read in place; give it as --config.data.path, which unpacks "
                        "it, or build it again with python -m medjax.build")
    tfds_layout.check(list(found.values()), tfds_layout.manifest(folder))
    naming = tfds_layout.naming_of(folder)
    return [replace(record, id=naming(record.id), subject=naming(record.subject))
            for part in parts for record in _records(part, found[part.paths[-1]])]


def _records(part: tfds_layout.Part, path: Path) -> list[Record]:
    try:
        entries = json.loads(gzip.decompress(path.read_bytes()))
        if len(entries) != part.count:
            raise ValueError(f"it has {len(entries)} examples of {part.count}")
        shard = str(part.paths[-1])
        return [record_json.record(known, partial(_find, shard, number)) for number, known in enumerate(entries)]
    except (*tfds_layout.DAMAGE, EOFError, TypeError, zlib.error) as error:
        raise UserError(path, f"damaged: {one_line(error)}; delete it, and build the set again") from error


def _find(shard: str, number: int, name: str, place: record_json.Place) -> InShard:
    return InShard(shard, number, sys.intern(name), sys.intern(place["code"]), tuple(place["shape"]))


@lru_cache(KEPT)
def _example(shard: str, number: int) -> Record:
    folder = Path(shard).parent
    try:
        stat = os.stat(shard)
        stored = _reader(shard, stat.st_ino, stat.st_size).read([number])[0]
        return tfds_layout.record(folder, "", number, _features(folder), stored)
    except tfds_layout.DAMAGE as error:
        if not os.path.exists(shard):
            raise UserError(shard, "is gone; it was there when the run began") from error
        raise UserError(shard, f"damaged: {one_line(error)}; build it again, or copy it") from error


@lru_cache(OPEN)
def _sha256(shard: str) -> str:
    """A shard's checksum as its manifest has it, "" where that is not known."""
    path = Path(shard)
    return tfds_layout.manifest(path.parent).get("files", {}).get(path.name, {}).get("sha256", "")


_features = lru_cache(KEPT)(tfds_layout.features_of)


@lru_cache(OPEN)
def _reader(shard: str, _inode: int, _size: int) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    return ArrayRecordReader(shard, OPTIONS, file_reader_buffer_size=BUFFER)
