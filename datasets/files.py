"""Your own files: every image, or all k-space, or every sinogram below a folder."""

from typing import Any

from medjax.data import io
from medjax.data.storage.builder import Builder, Item
from medjax.types import Record


class Files(Builder):
    """Every study of `kind` below a folder, in its stored dtype; `medjax.data.io` says which formats, and who is a subject.

    `subjects` is a CSV table with the columns filename and patientid; the kinds are image, kspace and sinogram; `series`
    chooses those of a series, by a part of its name or by its number.
    """

    name = "files"
    masked = True

    def __init__(self, *, subjects: str = "", kind: str = "image", series: str = "", **common: Any):
        self.subjects, self.kind, self.series = subjects, kind, series
        super().__init__(**common)

    def list_items(self) -> list[Item]:
        studies = io.discover(self.source, self.subjects, self.kind, self.series)
        return [Item.of(study.id, study.subject, study, study.paths) for study in studies]

    def records(self, item: Item) -> list[Record]:
        return item.what.read()
