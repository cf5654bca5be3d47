"""Data sets that TensorFlow Datasets has prepared as ArrayRecord, read and written without TensorFlow.

A record takes these features: `image` `(H, W, C)` or `(D, H, W, C)`, and where there are `id`, `subject`, `modality`,
`slope`, `intercept`, `spacing_mm`, `affine` (NaN where unknown); other features that are numbers are its extras (`mask`,
`label`, `class`; `foreground`, points on tissue). The data set's own parts (train, validation or val, test) are kept by
`medjax.data.split`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.statistics import foreground
from medjax.data.values import finite, luminance, native, one_line
from medjax.types import Record, UserError

MARKS = ("dataset_info.json", "features.json")
MANIFEST = "manifest.json"
PARTS = {"validation": "val"}
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

    def read(self) -> Iterator[Record]:
        """Its records, one by one. Raises UserError for what is damaged: ArrayRecord checks every chunk it reads."""
        from array_record.python.array_record_module import ArrayRecordReader

        shard = self.paths[-1]
        try:
            features = features_of(shard.parent)
            reader = ArrayRecordReader(str(shard))
            if reader.num_records() != self.count:
                raise ValueError(f"it has {reader.num_records()} examples of {self.count}")
            for number in range(self.count):
                yield record(shard.parent, self.split, self.first + number, features, reader.read([number])[0])
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


def layout_of(record: Record, dtype: str = "", masked: bool = False) -> Layout:
    """The layout of a data set whose first record this is; with `masked`, others may have a mask though this has none.

    Extras that a batch has no place for are left out: neither on the image's grid, nor a number or a vector.
    """
    space = (None,) * record.ndim
    layout: Layout = {"image": (dtype or record.image.dtype.name, (*space, record.image.shape[-1])),
                      "foreground": ("int32", (None, record.ndim))}
    if masked or "mask" in record.extras:
        layout["mask"] = ("uint8", (*space, 1))
    for name, value in record.extras.items():
        if name not in ("mask", "foreground") and value.dtype.kind in "biuf":
            if value.shape[:-1] == record.image.shape[:-1]:
                layout[name] = (value.dtype.name, (*space, value.shape[-1]))
            elif value.ndim <= 1:
                layout[name] = (value.dtype.name, value.shape)
    return layout


def features(layout: Layout, classes: Sequence[str] = ()) -> Any:
    """The TFDS features of a layout; `classes` names what extras["class"] counts."""
    import tensorflow_datasets as tfds

    tensor = partial(tfds.features.Tensor, encoding="bytes")  # what can be read without TensorFlow
    ndim = len(layout["image"][1]) - 1
    found = {name: tensor(shape=shape, dtype=np.dtype(dtype)) for name, (dtype, shape) in layout.items()}
    if classes and layout["class"][1] == ():
        found["class"] = tfds.features.ClassLabel(names=list(classes))
    number = partial(tensor, dtype=np.float64)
    return tfds.features.FeaturesDict(found | {
        "id": tfds.features.Text(), "subject": tfds.features.Text(), "modality": tfds.features.Text(),
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
        "id": record.id, "subject": record.subject, "modality": record.modality,
        "slope": np.float64(record.slope), "intercept": np.float64(record.intercept),
        "spacing_mm": np.array(record.spacing_mm or unknown, np.float64),
        "affine": np.full((4, 4), np.nan) if record.affine is None else np.asarray(record.affine, np.float64)}


def _fitted(where: str, name: str, value: np.ndarray | None, dtype: str, shape: Sequence[int | None]) -> np.ndarray:
    """`value` in the data set's dtype, without a loss."""
    if value is None:
        raise UserError(where, f"has no {name}, but the first image has; give it for all images or for none")
    value = np.asarray(value)
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


def record(folder: Path, part: str, number: int, features: Any, stored: bytes) -> Record:
    """The record of an example that is stored with `features`, the one of that number in a part. Raises UserError."""
    values = dict(features.deserialize_example_np(stored))
    if "image" not in values:
        raise UserError(folder, f"its examples have no feature image; they have {', '.join(sorted(values))}")
    name = _text(values.pop("id", "")) or f"{part}-{number}"
    image = native(folder, np.asarray(values.pop("image")))
    finite(folder / name, image)
    affine, sizes = (np.asarray(values.pop(key, ())) for key in ("affine", "spacing_mm"))
    known = {
        "subject": _text(values.pop("subject", "")) or name,
        "modality": _text(values.pop("modality", "")),
        "slope": float(values.pop("slope", 1.0)), "intercept": float(values.pop("intercept", 0.0)),
        "spacing_mm": tuple(float(v) for v in sizes) if np.isfinite(sizes).all() else (),
        "affine": affine if affine.size and np.isfinite(affine).all() else None,
    }
    numbers = {key: np.asarray(value) for key, value in values.items() if np.asarray(value).dtype.kind in "biuf"}
    numbers = {key: value.astype(bool) if key == "mask" else native(folder, value) for key, value in numbers.items()}
    if numbers.get("mask", np.zeros(1)).all():
        del numbers["mask"]
    return Record(image, name, **known, extras={**numbers, "part": np.array(PARTS.get(part, part))})


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
