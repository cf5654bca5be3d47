"""Raw MR data in files: fastMRI, ISMRMRD, BART, complex NumPy arrays."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medjax.data.formats._kspace import to_channels, to_complex
from medjax.data.io import Study, discover
from medjax.physics.espirit import espirit
from medjax.types import Record, UserError


@dataclass(frozen=True)
class Kspace:
    """Every file of k-space below `path`, or that file (formats of kind "kspace", see `medjax.data.io`).

    The image of a record is the root of the coil images' summed squares, `(slices, H, W, 1)` or `(H, W, 1)`, zeros where
    nothing was sampled, in units in which the largest value of a file is 1; `extras["kspace"]` has the same grid and scale,
    float32, the coils' real parts and then their imaginary parts as channels. With `calibration` > 0, `extras["maps"]`
    holds the coils' ESPIRiT sensitivities in the same form, from a full centre of that width. With `matrix` (H, W), files of
    other sizes are left out. `subjects` is a CSV table with the columns `filename` and `patientid`; all are held in memory.
    """

    path: str = ""
    calibration: int = 0
    matrix: tuple[int, ...] = ()
    subjects: str = ""

    def load(self) -> list[Record]:
        """The records. Raises UserError."""
        records = [record for study in self.studies() for record in self.records(study)]
        if self.matrix:
            sizes = sorted({record.image.shape[-3:-1] for record in records})
            records = [record for record in records if record.image.shape[-3:-1] == tuple(self.matrix)]
            if not records:
                raise UserError("config.data.source.matrix", f"no file has {tuple(self.matrix)}; there are "
                                f"{', '.join(map(str, sizes))}")
        for record in records:
            if record.extras["kspace"].shape[-1] != records[0].extras["kspace"].shape[-1]:
                raise UserError(record.id, f"has {record.extras['kspace'].shape[-1] // 2} coils, {records[0].id} "
                                f"{records[0].extras['kspace'].shape[-1] // 2}; give files of one kind")
        return records

    def studies(self) -> list[Study]:
        """The files there are, by name. Raises UserError."""
        if not self.path:
            raise UserError("config.data.source.path", "is empty; give a file of k-space, or a folder of them")
        return discover(Path(self.path), self.subjects, kind="kspace")

    def records(self, study: Study) -> list[Record]:
        """The records of one file, with the maps that were asked for. Raises UserError."""
        return [self._with_maps(record) for record in study.read()]

    def _with_maps(self, record: Record) -> Record:
        if not self.calibration:
            return record
        coils = to_complex(record.extras["kspace"])
        maps = np.stack([np.asarray(espirit(one, self.calibration)) for one in (coils if coils.ndim == 4 else coils[None])])
        channels = to_channels(maps)
        return replace(record, extras=record.extras | {"maps": channels if coils.ndim == 4 else channels[0]})
