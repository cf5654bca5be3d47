"""Pairs of full-dose and low-dose CT: LDCT-and-Projection-data of the Mayo Clinic (Moen et al., Med Phys 48, 2021).

The Cancer Imaging Archive gives it out, doi 10.7937/9NPB-2637, as one folder a patient (C002, L067, N005 …), in it a
folder a series: `1.000000-Full Dose Images-…`, `1.000000-Low Dose Images-…`, and projections, which are not read.
"""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from medjax.data import io
from medjax.data.storage.builder import Builder, Item
from medjax.types import Record, UserError

CONTRASTS = ("full", "low")


class MayoLdct(Builder):
    """One volume a patient, in HU, channels "full" and "low", which `configs/translate.py` makes one out of the other.

    `full` and `low` are patterns of the series' folder names, capitals aside; those of the 2016 Grand Challenge are
    `full_1mm` and `quarter_1mm`. Patients without both are left out, and said in the log.
    """

    name = "mayo_ldct"
    config = ("configs/translate.py --config.task.source=\"('low',)\" --config.task.target=full "
              "--config.data.range=\"(-1000.0,1000.0)\"")
    masked = True
    licence = "TCIA Limited Access / CC BY 4.0"

    def __init__(self, *, full: str = "*full*dose*images*", low: str = "*low*dose*images*", **common: Any):
        self.patterns = (full, low)
        super().__init__(**common)

    def list_items(self) -> list[Item]:
        found: list[dict[str, io.Study]] = [self._series(pattern) for pattern in self.patterns]
        full, low = found
        alone = sorted(set(full) ^ set(low))
        if alone:
            logging.warning("%s: %d patients have no pair of full and low dose and are left out", self.source, len(alone))
        pairs = {patient: (full[patient], low[patient]) for patient in sorted(set(full) & set(low))}
        return [Item.of(patient, patient, pair, pair[0].paths + pair[1].paths) for patient, pair in pairs.items()]

    def records(self, item: Item) -> list[Record]:
        (full,), (low,) = (study.read() for study in item.what)
        if full.image.shape != low.image.shape or not np.allclose(full.affine, low.affine, atol=1e-2):
            raise UserError(item.what[1].paths[0].parent, f"is not on the grid of the full dose, {low.image.shape[:-1]} and "
                            f"{full.image.shape[:-1]}, or another place; leave this patient out")
        if (full.slope, full.intercept) != (low.slope, low.intercept):
            raise UserError(item.what[1].paths[0].parent, "has another rescale slope or intercept than the full dose")
        image = np.concatenate([full.image, low.image], -1)
        masks = [record.extras["mask"] for record in (full, low) if "mask" in record.extras]
        extras = {"mask": np.logical_and.reduce(masks)} if masks else {}
        return [replace(full, id=item.id, image=image, contrasts=CONTRASTS, extras=extras)]

    def _series(self, pattern: str) -> dict[str, io.Study]:
        """The series whose folder's name fits, by patient."""
        folders = sorted(p for p in self.source.rglob("*") if p.is_dir() and fnmatch(p.name.lower(), pattern.lower()))
        if not folders:
            raise UserError(self.source, f"has no folder named {pattern}; give LDCT-and-Projection-data, or other patterns")
        studies: dict[str, io.Study] = {}
        for study in (study for folder in folders for study in io.discover(folder)):
            if study.subject in studies:
                raise UserError(study.paths[0].parent, f"is a second series {pattern} of one patient, beside "
                                f"{_folder(studies[study.subject].paths)}; keep one")
            studies[study.subject] = study
        return studies


def _folder(paths: Sequence[Path]) -> Path:
    return paths[0].parent
