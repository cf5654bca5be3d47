"""The user's own files: one, a DICOM series, a folder of them, or a data set prepared by TFDS."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from absl import logging

from medjax.data.io import discover
from medjax.data.storage.cache import Unread, unpack
from medjax.data.storage.tfds_layout import is_prepared, parts
from medjax.data.values import luminance
from medjax.types import Record, UserError


@dataclass(frozen=True)
class Files:
    """Every study of `kind` in the file or below the folder `path`.

    The kinds are "image", "kspace" and "sinogram", of which the latter have an image too; `medjax.data.io` says which
    formats, and who is a subject. A folder that TFDS has prepared (`…/<name>/<version>`, ArrayRecord) is read as
    `medjax.data.storage.tfds_layout` says.

    `match` is a pattern of the names of the files that count ("*_T1w.nii.gz"), where label maps lie beside images.
    `subjects` is a CSV table with the columns `filename` and `patientid`; `series` chooses the studies whose series (or
    file) has it in its name, or the series of that number; `cache` is the folder that images are unpacked into,
    `~/.cache/medjax` if empty.
    """

    path: str = ""
    subjects: str = ""
    series: str = ""
    cache: str = ""
    kind: str = "image"
    match: str = ""

    def load(self) -> list[Record]:
        """The records, mapped from the cache. Where grey and colour are mixed, all are grey. Raises UserError."""
        if not self.path:
            raise UserError("config.data.path", "is empty; give a file or folder of images")
        folder = Path(self.path).expanduser()
        return alike(unpack(self._studies(folder), self.cache))

    def _studies(self, folder: Path) -> Sequence[Unread]:
        if is_prepared(folder):
            if self.series:
                raise UserError("config.data.series", f"{folder} is a prepared data set, which has no series; choose one "
                                "when building it: --options='series=NAME'")
            return parts(folder)
        found = [study for study in discover(folder, self.subjects, self.kind, self.series)
                 if not self.match or study.paths[0].match(self.match)]
        if not found:
            raise UserError("config.data.source.match", f"{self.match!r} is the name of no {self.kind} in {folder}")
        return found


def alike(records: list[Record]) -> list[Record]:
    """The records, all grey where some are: in colour they are read as luminance, and that is said."""
    coloured = [r for r in records if r.image.shape[-1] == 3]
    if not coloured or len(coloured) == len(records):
        return records
    logging.warning("%d of %d images are in colour, the first is %s; they are read as grey", len(coloured), len(records),
                    coloured[0].id)
    return [replace(r, image=luminance(np.asarray(r.image))) if r.image.shape[-1] == 3 else r for r in records]
