"""What TFDS builders of medical images have in common: who is in which part, what an example holds, which shard it is in.

A builder (`datasets/<name>.py`) says which studies there are and reads one; it is a `tfds.core.ShardBasedBuilder`, so TFDS
can prepare it (`builder.download_and_prepare()`), and `medjax.data.storage.shard_writer` can, in processes and again after
a kill.
"""

import hashlib
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from medjax.data.split import split
from medjax.data.storage import tfds_layout
from medjax.data.storage.blocks import blocks
from medjax.data.storage.catalogue import module_of
from medjax.data.storage.names import Naming, plain, pseudonym, salt_of
from medjax.types import Record, UserError

SHARD_BYTES = 256 << 20
MIN_SHARDS = 16  # of a part that has as many studies, so that there is something to do side by side
SPLITS = {"train": "train", "val": "validation", "test": "test"}
FEWEST = 3  # subjects that can be divided into training, validation and test


@dataclass(frozen=True)
class Item:
    """A study that is not read yet: `what` its builder reads it from, `size` about how many bytes it has.

    `files` are the names and sizes of its files: a build goes on only with the same. `part` is train, val or test where the
    makers of the data set said so; `subject` may be "" there, if each image counts as one.
    """

    id: str
    subject: str
    what: Any
    size: int
    files: tuple[tuple[str, int], ...] = ()
    part: str = ""

    @classmethod
    def of(cls, name: str, subject: str, what: Any, paths: Sequence[Path]) -> "Item":
        """The study that lies in `paths`. Raises UserError where one is not there."""
        try:
            files = tuple((path.name, path.stat().st_size) for path in paths)
        except OSError as error:
            raise UserError(error.filename, f"can't be read: {error.strerror}; {name} is made of it") from error
        return cls(name, subject, what, sum(size for _, size in files), files)


@dataclass(frozen=True)
class Shard:
    """A file of a data set: `number` of `count` of a part, with the items whose examples it holds."""

    split: str
    number: int
    count: int
    items: tuple[Item, ...]

    def filename(self, name: str) -> str:
        """As TFDS names it."""
        return f"{name}-{self.split}.array_record-{self.number:05d}-of-{self.count:05d}"


class Builder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """The base of all: a subclass gives `items`, `records`, its `name` and, as keywords of `__init__`, its options.

    `source` is the user's file or folder. Training images are cut into blocks of `patch` with `overlap` voxels in common
    (see `storage.blocks`), validation and test images stay whole, as they are judged. Parts are divided by subject
    in `fractions`, unless the items name theirs; with fewer than three subjects all is "train", and is divided where it is
    read. `dtype` is what images are stored as, the first image's if empty. `layout` and `salt`, of the hashes that ids and
    subjects are stored as, are known where a build goes on. Raises UserError.
    """

    VERSION = tfds.core.Version("1.0.0")
    masked: ClassVar[bool] = False  # records may have a mask
    nobody: ClassVar[bool] = False  # ids and subjects name nobody, and are stored as they are
    classes: tuple[str, ...] = ()  # names of what extras["class"] counts
    licence: ClassVar[str] = ""
    config: ClassVar[str] = "configs/quickstart.py"  # what to train with it, for a start
    arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any):
        # Names are looked up as files, not in TFDS's register; the base has no types.
        super().__init_subclass__(skip_registration=True, **kwargs)  # type: ignore[call-arg]

    def __new__(cls, *_: Any, **arguments: Any) -> "Builder":
        builder = super().__new__(cls)
        builder.arguments = arguments
        return builder

    def __init__(self, *, source: str = "", patch: Sequence[int] = (), overlap: int = 0, dtype: str = "",
                 fractions: Sequence[float] = (0.8, 0.1, 0.1), layout: tfds_layout.Layout | None = None, salt: bytes = b"",
                 data_dir: str | Path | None = None):
        self.source = Path(source).expanduser()
        self.patch, self.overlap, self.dtype, self.fractions = tuple(patch), overlap, dtype, tuple(fractions)
        self._layout, self.salt = layout, salt
        if min((0, *self.patch, overlap)) < 0:
            raise UserError("--patch", f"{self.patch} with an overlap of {overlap}; give sizes of at least 1, 0 for all")
        super().__init__(data_dir=data_dir, file_format="array_record")

    def __reduce__(self) -> tuple[Callable, tuple]:
        return load, (Path(inspect.getfile(type(self))), self.arguments | {"layout": self.layout, "salt": self.salt})

    @abstractmethod
    def list_items(self) -> list[Item]:
        """Every study, without reading more than what says whose it is. Raises UserError."""

    @abstractmethod
    def records(self, item: Item) -> list[Record]:
        """The records of a study. Raises UserError."""

    @cached_property
    def items(self) -> list[Item]:
        """Every study."""
        return self.list_items()

    @cached_property
    def layout(self) -> tfds_layout.Layout:
        """What every example has, taken from the first study."""
        if self._layout is not None:
            return self._layout
        first = next(record for item in self.items for record in self.records(item))
        if self.dtype and not np.can_cast(first.image.dtype, self.dtype, "safe"):
            raise UserError("--dtype", f"{self.dtype} can't hold what {first.id} has, {first.image.dtype}; give a wider one")
        return tfds_layout.layout_of(first, self.dtype, self.masked)

    @cached_property
    def naming(self) -> Naming:
        """What is stored in the place of an id or a subject."""
        if self.nobody:
            return plain
        return partial(pseudonym, self.salt or salt_of(Path(self.data_dir)))

    @cached_property
    def shards(self) -> list[Shard]:
        """The files there will be: a function of the studies alone. Items are in the order of a hash of their ids."""
        found = []
        for name, items in self._parts().items():
            items = sorted(items, key=lambda item: hashlib.sha256(item.id.encode()).digest())
            wanted = max(-(-sum(item.size for item in items) // SHARD_BYTES), MIN_SHARDS)
            count = min(wanted, len(items))
            found += [Shard(name, number, count, tuple(items[number::count])) for number in range(count)]
        return found

    def examples(self, shard: Shard) -> Iterator[tuple[str, dict[str, Any]]]:
        """The examples of a shard with their keys. Raises UserError."""
        for item in shard.items:
            for record in self.records(item):
                cut = blocks(record, self.patch, self.overlap) if self.patch and shard.split == "train" else [record]
                name = self.naming(record.id)
                for block in cut:
                    id_ = name + block.id.removeprefix(record.id)
                    names = {"id": id_, "subject": self.naming(block.subject)}
                    yield id_, tfds_layout.example(block, self.layout) | names

    def _parts(self) -> dict[str, list[Item]]:
        items = self.items
        if not items:
            raise UserError(self.source, f"holds nothing that {self.name} reads")
        if all(item.part for item in items):
            return {SPLITS[part]: chosen for part in SPLITS if (chosen := [i for i in items if i.part == part])}
        if len({item.subject for item in items}) < FEWEST:
            if self.patch:
                raise UserError("--patch", "there are fewer than three subjects, of which only whole images can be divided "
                                "into parts that don't share voxels; leave it out, or add subjects")
            return {"train": items}
        point = np.zeros((1, 1, 1), np.uint8)  # who is in which part has nothing to do with the images
        by_id = {f"{number}": item for number, item in enumerate(items)}
        regions = split([Record(point, number, item.subject) for number, item in by_id.items()], self.fractions)
        return {SPLITS[part]: [by_id[r.record.id] for r in chosen] for part, chosen in regions.items() if chosen}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=tfds_layout.features(self.layout, self.classes),
                                     description=inspect.getdoc(type(self)), license=self.licence or None)

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Callable[[], Iterator]]]:
        iterators: dict[str, list[Callable[[], Iterator]]] = {}
        for shard in self.shards:
            iterators.setdefault(shard.split, []).append(partial(self.examples, shard))
        return iterators


def builder_class(file: Path) -> type[Builder]:
    """The builder in a file, `datasets/<name>.py`."""
    module = module_of(file)
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Builder) and value.__module__ == module.__name__:
            return value
    raise UserError(file, "has no builder; give a file with a subclass of medjax.data.storage.builder.Builder")


def load(file: Path, arguments: Mapping[str, Any]) -> Builder:
    """The builder in a file, made with `arguments`."""
    return builder_class(file)(**arguments)


def options(cls: type[Builder]) -> dict[str, Any]:
    """The options that a builder has beside those of all, with their defaults."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
