"""X-rays in a folder with an index: `images/` and a CSV file that names each image's finding and patient.

The public set in this form is covid-chestxray-dataset (Cohen et al., arXiv:2003.11597, 2020); each image has a licence of
its own, which its index names.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from medjax.data.sources.labelled import Labelled
from medjax.data.storage.builder import Builder, Item
from medjax.types import Record


class Xray(Builder):
    """Pictures with a class each, 8 bit, split by patient; columns as `medjax.data.sources.labelled` says.

    `size` is their longest side in pixels, 0 leaves them as they are. `classes` () takes every finding of the index.
    """

    name = "xray"
    config = "configs/xray_classify.py:source=labelled"

    def __init__(self, *, index: str = "index.csv", images: str = "images", file: str = "filename", label: str = "finding",
                 subject: str = "patientid", classes: tuple[str, ...] = (), separator: str = "", colour: bool = False,
                 size: int = 256, **common: Any):
        self.labelled = Labelled(common.get("source", ""), index, images, file, label, subject, tuple(classes) or ("*",),
                                 separator, colour, size)
        if not classes:
            found = {found for row in self.labelled.rows() for found in self.labelled.labels_of(row[label])}
            self.labelled = replace(self.labelled, classes=tuple(sorted(found)))
        self.classes = self.labelled.classes
        super().__init__(**common)

    def list_items(self) -> list[Item]:
        rows = [(row, self.labelled.file_of(row)) for row in self.labelled.rows()]
        return [Item.of(file.stem, row[self.labelled.subject], row, [file]) for row, file in rows]

    def records(self, item: Item) -> list[Record]:
        record = self.labelled.record(item.what)
        return [replace(record, modality="CR", extras={"class": np.asarray(record.extras["class"])})]
