"""Data sets that TensorFlow Datasets has prepared as ArrayRecord, read without TensorFlow.

A record takes these features: `image` `(H, W, C)` or `(D, H, W, C)`, and where there are `id`, `subject`, `modality`,
`slope`, `intercept`, `spacing_mm`, `affine`; other features that are numbers are its extras (`mask`, `label`, `class`).
The data set's own parts (train, validation or val, test) are kept by `medjax.data.split`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.values import finite, native, one_line
from medjax.types import Record, UserError

MARKS = ("dataset_info.json", "features.json")
PARTS = {"validation": "val"}


@dataclass(frozen=True)
class Part:
    """One part of a prepared data set, to be unpacked into the cache."""

    paths: tuple[Path, ...]
    id: str
    subject: str = ""

    def read(self) -> Iterator[Record]:
        """Its records, one by one. Raises UserError."""
        folder = self.paths[0].parent
        try:
            examples = _builder(folder).as_data_source(self.id)
            for number, example in enumerate(examples):
                yield _record(folder, self.id, number, example)
        except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
            raise UserError(folder, f"damaged, or not prepared as ArrayRecord: {one_line(error)}") from error


def is_prepared(path: Path) -> bool:
    """Whether a folder is a prepared data set (`…/<name>/<version>`)."""
    return all((path / mark).is_file() for mark in MARKS)


def parts(folder: Path) -> list[Part]:
    """The parts of a prepared data set. Raises UserError."""
    try:
        names = sorted(_builder(folder).info.splits)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(folder, f"no data set that TFDS can read: {one_line(error)}") from error
    files = {name: sorted(folder.glob(f"*-{name}.array_record*")) for name in names}
    if not names or not all(files.values()):
        raise UserError(folder, "has no ArrayRecord files; prepare it with file_format='array_record'")
    return [Part((folder / MARKS[1], *files[name]), name) for name in names]


def _builder(folder: Path) -> Any:
    import tensorflow_datasets as tfds  # takes a second, and only this needs it

    return tfds.builder_from_directory(folder)


def _record(folder: Path, part: str, number: int, example: Mapping[str, Any]) -> Record:
    values = dict(example)
    if "image" not in values:
        raise UserError(folder, f"its examples have no feature image; they have {', '.join(sorted(values))}")
    name = _text(values.pop("id", "")) or f"{part}-{number}"
    image = native(folder, np.asarray(values.pop("image")))
    finite(folder / name, image)
    known = {
        "subject": _text(values.pop("subject", "")) or name,
        "modality": _text(values.pop("modality", "")),
        "slope": float(values.pop("slope", 1.0)), "intercept": float(values.pop("intercept", 0.0)),
        "spacing_mm": tuple(float(v) for v in values.pop("spacing_mm", ())),
        "affine": np.asarray(values.pop("affine")) if "affine" in values else None,
    }
    numbers = {key: np.asarray(value) for key, value in values.items() if np.asarray(value).dtype.kind in "biuf"}
    numbers = {key: value.astype(bool) if key == "mask" else native(folder, value) for key, value in numbers.items()}
    return Record(image, name, **known, extras={**numbers, "part": np.array(PARTS.get(part, part))})


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
