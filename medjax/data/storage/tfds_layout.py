"""Data sets that TensorFlow Datasets has prepared as ArrayRecord, read and written without TensorFlow.

A record takes these features: `image` `(H, W, C)` or `(D, H, W, C)`, and where there are `id`, `subject`, `modality`,
`units`, `contrasts` (a JSON list), `slope`, `intercept`, `spacing_mm`, `affine` (NaN where unknown); other features that are
numbers are its extras (`mask`, `label`, `class`; `foreground`, points on tissue), and of sets that medjax built so are other
texts. The data set's own parts (train, validation or val, test) are kept by `medjax.data.split`.

Sets that medjax built hold pseudonyms for ids and subjects (`medjax.data.storage.names`). Of other sets those are read as
pseudonyms too, since records are noted in caches.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.statistics import foreground
from medjax.data.storage.names import Naming, plain, pseudonym
from medjax.data.values import finite, luminance, native, one_line
from medjax.types import Record, UserError

MARKS = ("dataset_info.json", "features.json")
MANIFEST = "manifest.json"
PARTS = {"validation": "val"}
NAMES = "names"  # the key of a manifest that says what its names are
TEXT = "str"  # the dtype of a layout's texts
SALTED_BY = 1 << 20  # bytes of a set that others prepared which make the salt of its names
DAMAGE = (OSError, ValueError, RuntimeError, ImportError, KeyError)

Layout = dict[str, tuple[str, tuple[int | None, ...]]]
"""What every example of a data set has: the dtype and shape of its `image`, `mask` and extras, None where sizes vary."""


@dataclass(frozen=True)
class Part:
    """One shard of a prepared data set, to be unpacked into the cache; `first` is the number of its first example."""

    paths: tuple[Path, ...]
    id: str
    split: str
    first: int = 0
    count: int = 0
    subject: str = ""
    series: str = ""

    def read(self) -> Iterator[Record]:
        """Its records, one by one. Raises UserError for what is damaged: ArrayRecord checks every chunk it reads."""
        from array_record.python.array_record_module import ArrayRecordReader

        shard = self.paths[-1]
        try:
            features, naming = features_of(shard.parent), naming_of(shard.parent)
            reader = ArrayRecordReader(str(shard))
            if reader.num_records() != self.count:
                raise ValueError(f"it has {reader.num_records()} examples of {self.count}")
            for number in range(self.count):
                yield record(shard.parent, self.split, self.first + number, features, reader.read([number])[0], naming)
        except DAMAGE as error:
            raise UserError(shard, f"damaged, or not prepared as ArrayRecord: {one_line(error)}; build it again") from error


def is_prepared(path: Path) -> bool:
    """Whether a folder is a prepared data set (`…/<name>/<version>`). Raises UserError for one that is not finished."""
    if all((path / mark).is_file() for mark in MARKS):
        return True
    if not path.exists() and unfinished(path).is_dir():
        raise UserError(path, "is half built; run the command that builds it again, and it goes on")
    return False


def unfinished(folder: Path) -> Path:
    """Where a data set is while it is built."""
    return folder.with_name(f".{folder.name}.build")


def parts(folder: Path) -> list[Part]:
    """The shards of a prepared data set, in order. Raises UserError."""
    found = []
    try:
        for name, split in sorted(_builder(folder).info.splits.items()):
            first = 0
            for path, count in zip(split.filepaths, split.shard_lengths, strict=True):
                shard = Path(path)
                found.append(Part((folder / MARKS[1], shard), f"{name}/{shard.name}", name, first, count))
                first += count
    except DAMAGE as error:
        raise UserError(folder, f"no data set that TFDS can read: {one_line(error)}") from error
    if not found or not all(".array_record" in part.paths[-1].name for part in found):
        raise UserError(folder, "has no ArrayRecord files; prepare it with file_format='array_record'")
    check([part.paths[-1] for part in found], manifest(folder))
    return found


def check(paths: Sequence[Path], noted: dict[str, Any]) -> None:
    """Raises UserError for a file of a data set that is not there, or not of the size that its manifest `noted`, if any."""
    sizes = {name: facts["bytes"] for name, facts in noted.get("files", {}).items()}
    for path in paths:
        if not path.is_file():
            raise UserError(path, "no such file, but the data set names it; build it again, or copy it")
        if path.stat().st_size != sizes.get(path.name, path.stat().st_size):
            raise UserError(path, f"has {path.stat().st_size} bytes of {sizes[path.name]}; build it again, or copy it")


def manifest(folder: Path) -> dict[str, Any]:
    """What `medjax.build` has noted of a finished data set (`storage.shard_writer`); nothing without a note."""
    path = folder / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise UserError(path, f"damaged: {one_line(error)}; delete it, and build the set again") from error


def naming_of(folder: Path) -> Naming:
    """What the names in a set are read as: as they are where medjax built it, else as pseudonyms.

    The salt is a hash of the set itself, so that its pseudonyms are the same on every machine that has the set.
    """
    if NAMES in manifest(folder):
        return plain
    salt = hashlib.sha256()
    for path in [*(folder / mark for mark in MARKS), *sorted(folder.glob("*array_record*"))[:1]]:
        with path.open("rb") as file:
            salt.update(file.read(SALTED_BY))
    return partial(pseudonym, salt.digest())


def layout_of(record: Record, dtype: str = "", masked: bool = False) -> Layout:
    """The layout of a data set whose first record this is; with `masked`, others may have a mask though this has none.

    Extras that are kept have as many axes as the image, on its grid or another, or are a number, a vector or a text.
    """
    space = (None,) * record.ndim
    layout: Layout = {"image": (dtype or record.image.dtype.name, (*space, record.image.shape[-1])),
                      "foreground": ("int32", (None, record.ndim))}
    if masked or "mask" in record.extras:
        layout["mask"] = ("uint8", (*space, 1))
    for name, value in record.extras.items():
        if name not in ("mask", "foreground") and value.dtype.kind in "biuf":
            if value.ndim == record.image.ndim:
                layout[name] = (value.dtype.name, (*space, value.shape[-1]))
            elif value.ndim <= 1:
                layout[name] = (value.dtype.name, value.shape)
        elif value.dtype.kind == "U" and value.ndim == 0:
            layout[name] = (TEXT, ())
    return layout


def features(layout: Layout, classes: Sequence[str] = ()) -> Any:
    """The TFDS features of a layout; `classes` names what extras["class"] counts."""
    import tensorflow_datasets as tfds

    tensor = partial(tfds.features.Tensor, encoding="bytes")  # what can be read without TensorFlow
    ndim = len(layout["image"][1]) - 1
    text = tfds.features.Text
    found = {name: text() if dtype == TEXT else tensor(shape=shape, dtype=np.dtype(dtype))
             for name, (dtype, shape) in layout.items()}
    if classes and layout["class"][1] == ():
        found["class"] = tfds.features.ClassLabel(names=list(classes))
    number = partial(tensor, dtype=np.float64)
    return tfds.features.FeaturesDict(found | {
        "id": text(), "subject": text(), "modality": text(), "units": text(), "contrasts": text(),
        "slope": number(shape=()), "intercept": number(shape=()), "spacing_mm": number(shape=(ndim,)),
        "affine": number(shape=(4, 4))})


def example(record: Record, layout: Layout) -> dict[str, Any]:
    """A record as an example of `features(layout)`. Raises UserError where it doesn't fit the layout."""
    values = {"image": np.asarray(record.image), **record.extras, "foreground": foreground(record)}
    if "mask" in layout and "mask" not in values:
        values["mask"] = np.ones((*record.image.shape[:-1], 1), np.uint8)
    arrays = {name: _fitted(record.id, name, values.get(name), *kind) for name, kind in layout.items()}
    unknown = (np.nan,) * record.ndim
    return arrays | {
        "id": record.id, "subject": record.subject, "modality": record.modality, "units": record.units,
        "contrasts": json.dumps(record.contrasts),
        "slope": np.float64(record.slope), "intercept": np.float64(record.intercept),
        "spacing_mm": np.array(record.spacing_mm or unknown, np.float64),
        "affine": np.full((4, 4), np.nan) if record.affine is None else np.asarray(record.affine, np.float64)}


def _fitted(where: str, name: str, value: np.ndarray | None, dtype: str, shape: Sequence[int | None]) -> np.ndarray | str:
    """`value` in the data set's dtype, without a loss."""
    if value is None:
        raise UserError(where, f"has no {name}, but the first image has; give it for all images or for none")
    value = np.asarray(value)
    if dtype == TEXT:
        return str(value)
    if value.ndim == len(shape) and name == "image" and value.shape[-1] == 3 and shape[-1] == 1:
        value = luminance(value)
    if value.ndim != len(shape) or any(n not in (None, size) for n, size in zip(shape, value.shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise UserError(where, f"its {name} has the shape {value.shape}, the first image's ({wanted}); build them apart")
    if not np.can_cast(value.dtype, dtype, "safe"):
        wider = np.promote_types(value.dtype, dtype).name
        raise UserError(where, f"its {name} is {value.dtype}, the first image's {dtype}; store all as --dtype={wider}")
    return np.asarray(value, dtype, order="C")


def features_of(folder: Path) -> Any:
    """The TFDS features of the data set in a folder."""
    return _builder(folder).info.features


def _builder(folder: Path) -> Any:
    import tensorflow_datasets as tfds  # takes a second, and only this needs it

    return tfds.builder_from_directory(folder)


def record(folder: Path, part: str, number: int, features: Any, stored: bytes, naming: Naming = plain) -> Record:
    """The record of an example that is stored with `features`, the one of that number in a part. Raises UserError."""
    values = dict(features.deserialize_example_np(stored))
    if "image" not in values:
        raise UserError(folder, f"its examples have no feature image; they have {', '.join(sorted(values))}")
    name, subject = (value and naming(value) for value in (_text(values.pop(key, "")) for key in ("id", "subject")))
    name = name or f"{part}-{number}"
    image = native(folder, np.asarray(values.pop("image")))
    finite(folder / name, image)
    affine, sizes = (np.asarray(values.pop(key, ())) for key in ("affine", "spacing_mm"))
    known: dict[str, Any] = {
        "modality": _text(values.pop("modality", "")), "units": _text(values.pop("units", "")),
        "contrasts": tuple(json.loads(_text(values.pop("contrasts", "[]")))),
        "slope": float(values.pop("slope", 1.0)), "intercept": float(values.pop("intercept", 0.0)),
        "spacing_mm": tuple(float(v) for v in sizes) if np.isfinite(sizes).all() else (),
        "affine": affine if affine.size and np.isfinite(affine).all() else None,
    }
    return Record(image, name, subject or name, **known, extras=_extras(folder, values, naming is plain)
                  | {"part": np.array(PARTS.get(part, part))})


def _extras(folder: Path, values: dict[str, Any], texts: bool) -> dict[str, np.ndarray]:
    """What else an example holds: numbers, and where nobody else may be named there, `texts`."""
    found = {key: np.asarray(value) for key, value in values.items() if np.asarray(value).dtype.kind in "biuf"}
    found = {key: value.astype(bool) if key == "mask" else native(folder, value) for key, value in found.items()}
    if found.get("mask", np.zeros(1)).all():
        del found["mask"]
    return found | {key: np.array(_text(value)) for key, value in values.items() if texts and isinstance(value, bytes | str)}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
