"""Images with a class each, listed in a CSV file: folders of PNG or JPEG with an index beside them."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from medjax.data.formats import picture
from medjax.types import Record, UserError


@dataclass(frozen=True)
class Labelled:
    """The images of `path`/`images` that `path`/`index` names: 8 bit, grey or `colour`, their longest side `size` pixels.

    `size` 0 leaves them as they are.

    `file`, `label` and `subject` are columns of the index; no split divides a subject. A class in `classes` is the name
    of a label, or several that count as one: "pneumonia|sepsis"; "*" takes all labels that no other names. Rows of other
    labels are left out. With `separator` a row may have several labels ("a, b"), and extras["class"] is `(K,)` of 0 and 1;
    without, it is the index of the class.
    """

    path: str = ""
    index: str = "index.csv"
    images: str = "images"
    file: str = "filename"
    label: str = "finding"
    subject: str = "patientid"
    classes: tuple[str, ...] = ("*",)
    separator: str = ""
    colour: bool = False
    size: int = 128

    def load(self) -> list[Record]:
        """The records, in the order of the index. Raises UserError."""
        return [self.record(row) for row in self.rows()]

    def rows(self) -> list[dict[str, str]]:
        """The rows of the index that have one of the classes. Raises UserError."""
        index = Path(self.path) / self.index
        if not self.path or not index.is_file():
            raise UserError("config.data.source.path", f"no file {self.index} in {self.path!r}; give the folder that has it")
        try:
            with index.open(encoding="utf-8-sig", newline="") as lines:
                rows = list(csv.DictReader(lines, restval=""))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(index, f"can't be read as a CSV table: {error}") from error
        for column in (self.file, self.label, self.subject):
            if not rows or column not in rows[0]:
                raise UserError(index, f"has no column {column!r}; it has {', '.join(rows[0]) if rows else 'no rows'}")
        chosen = [row for row in rows if self._class(row[self.label]) is not None]
        if not chosen:
            raise UserError(index, f"no row has one of {', '.join(self.classes)} in column {self.label}")
        return chosen

    def file_of(self, row: dict[str, str]) -> Path:
        """The image of a row."""
        return (Path(self.path) / self.index).parent / self.images / row[self.file]

    def record(self, row: dict[str, str]) -> Record:
        """The image of a row and its class. Raises UserError."""
        path, found = self.file_of(row), self._class(row[self.label])
        return Record(read(path, self.size, self.colour), Path(row[self.file]).stem, row[self.subject],
                      extras={} if found is None else {"class": found})

    def labels_of(self, text: str) -> list[str]:
        """The labels that the index gives a row."""
        return [part.strip() for part in (text.split(self.separator) if self.separator else [text])]

    def _class(self, text: str) -> np.ndarray | None:
        """The class of a row, None where it has none of them."""
        named = [set(name.split("|")) for name in self.classes]
        labels = set(self.labels_of(text))
        known = set().union(*named)
        present = [bool(names & labels) or ("*" in names and bool(labels - known)) for names in named]
        if not any(present):
            return None
        return np.array(present, np.int32) if self.separator else np.array(present.index(True), np.int32)


def read(path: Path, size: int, colour: bool) -> np.ndarray:
    """An image file as `(H, W, 1 or 3)` uint8, its longest side `size` pixels (0: as it is). Raises UserError."""
    if not path.exists():
        raise UserError(path, "is in the index, but there is no such file")
    image = picture.load(path).convert("RGB" if colour else "L")
    if size:
        factor = size / max(image.size)
        image = image.resize([max(1, round(n * factor)) for n in image.size], Image.Resampling.BOX if factor < 1 else
                             Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels if colour else pixels[..., None]
