"""Your own images: every NIfTI, DICOM series, PNG, JPEG and .npy below a folder."""

from typing import Any

from medjax.data import io
from medjax.data.storage.builder import Builder, Item
from medjax.types import Record


class Files(Builder):
    """Every image below a folder, in its stored dtype; `medjax.data.io` says which formats, and who is a subject.

    `subjects` is a CSV table with the columns filename and patientid.
    """

    name = "files"
    masked = True

    def __init__(self, *, subjects: str = "", **common: Any):
        self.subjects = subjects
        super().__init__(**common)

    def list_items(self) -> list[Item]:
        studies = io.discover(self.source, self.subjects)
        return [Item.of(study.id, study.subject, study, study.paths) for study in studies]

    def records(self, item: Item) -> list[Record]:
        return item.what.read()
