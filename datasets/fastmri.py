"""fastMRI: raw k-space of knees and heads (Zbontar et al., arXiv:1811.08839, 2018), `.h5` files as they are given out.

Its licence allows use for research and forbids to pass the data on: https://fastmri.med.nyu.edu
"""

from typing import Any

from medjax.data.sources.kspace import Kspace
from medjax.data.storage.builder import Builder, Item
from medjax.types import Record, UserError


class Fastmri(Builder):
    """Fully sampled k-space with its root-sum-of-squares image, split by patient (`medjax.data.sources.kspace`).

    With `calibration` > 0 the coils' ESPIRiT sensitivities from a centre of that width, "maps". `subjects` is a CSV table
    with the columns filename and patientid. K-space can be cut along slices only: `--patch=1,0,0`.
    """

    name = "fastmri"
    config = "configs/mri_recon.py:source=kspace"
    licence = "fastMRI Dataset Sharing Agreement"

    def __init__(self, *, calibration: int = 0, subjects: str = "", **common: Any):
        self.kspace = Kspace(str(common.get("source", "")), calibration, subjects)
        if any(tuple(common.get("patch", ()))[1:]):
            raise UserError("--patch", "k-space is of the whole slice; cut along slices only, as in --patch=4,0,0")
        super().__init__(**common)

    def list_items(self) -> list[Item]:
        return [Item.of(study.id, study.subject, study, study.paths) for study in self.kspace.studies()]

    def records(self, item: Item) -> list[Record]:
        return self.kspace.records(item.what)
