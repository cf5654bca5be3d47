"""Where `medjax.apply` puts what it makes: files beside or below the output's name, and one table for all studies."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from medjax.data.io import Study
from medjax.data.write import write, write_labels
from medjax.files import write_atomically
from medjax.types import UNSAID, Derivation, Record, Units

LOSSY = (".jpg", ".jpeg")
OTHERS = (".nii", ".nii.gz", ".csv")


@dataclass
class Table:
    """One row for each study, written as CSV."""

    rows: dict[str, dict[str, str | float]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Writes the rows there are, if they have columns; those that a study lacks stay empty."""
        columns = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        if not columns:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, ["study", *columns], restval="")
        writer.writeheader()
        writer.writerows({"study": study, **row} for study, row in self.rows.items())
        write_atomically(path, text.getvalue())


@dataclass(frozen=True)
class StudyDestination:
    """The destination of one study's outputs: `target` is its file, or the folder of its series.

    `to_source` brings the units that each record, by its id, was rescaled to back to its own; `derivation` goes into
    headers.
    """

    study: Study
    target: Path
    table: Table
    to_source: Mapping[str, Units] = field(default_factory=dict)
    derivation: Derivation = UNSAID

    def write_images(self, name: str, images: Sequence[np.ndarray], difference: str = "") -> None:
        """Has the study's own format write a file or series; a `difference` of a lossy format becomes PNG.

        Raises UserError for a format that can't be written.
        """
        back = list(self.to_source.values()) or [np.asarray]
        if len(back) != len(images):  # a task that takes the frames of a study as other records, of one scale
            back = back[:1] * len(images)
        if difference:
            back = [partial(_difference, to_source) for to_source in back]
        found = [to_source(image) for to_source, image in zip(back, images, strict=True)]
        target, made_by = self._named(name), self.derivation
        if difference:
            target = self._lossless(target)
            made_by = replace(made_by, description=f"{difference} of: {made_by.description}")
        write(target, found, self.study, made_by)

    def write_labels(self, name: str, labels: Sequence[np.ndarray], names: Sequence[str]) -> None:
        """As images; labels of a lossy format become PNG."""
        write_labels(self._lossless(self._named(name)), labels, names, self.study, self.derivation)

    def file(self, name: str, suffix: str) -> Path:
        """A file of another kind, beside the study's."""
        base = self.target.with_name(stem(self.target, self.study) + (f"_{name}" if name else "") + suffix)
        base.parent.mkdir(parents=True, exist_ok=True)
        return base

    def in_source_units(self, image: np.ndarray, record: Record, difference: bool = False) -> np.ndarray:
        """An image, or a `difference` of values, in the task's physical units in those of the record's source."""
        to_source = self.to_source[record.id]
        return _difference(to_source, image) if difference else to_source(image)

    def add_row(self, values: Mapping[str, str | float]) -> None:
        """Adds columns to the study's row."""
        self.table.rows.setdefault(self.study.id, {}).update(values)

    @staticmethod
    def _lossless(target: Path) -> Path:
        return target.with_suffix(".png") if target.suffix.lower() in LOSSY else target

    def _named(self, name: str) -> Path:
        if not name:
            return self.target
        base = stem(self.target, self.study)
        return self.target.with_name(f"{base}_{name}{self.target.name.removeprefix(base)}")


def _difference(to_source: Units, image: np.ndarray) -> np.ndarray:
    """A difference of values in the units of the source, whose scale may begin elsewhere."""
    return np.abs(to_source(image) - to_source(np.zeros((1,) * image.ndim, image.dtype)))


def stem(target: Path, study: Study) -> str:
    """The target's name without the suffix of a format that results have."""
    suffixes = sorted((*study.form.SUFFIXES, *OTHERS), key=len, reverse=True)
    suffix = next((s for s in suffixes if s and target.name.lower().endswith(s)), "")
    return target.name[: len(target.name) - len(suffix)]
