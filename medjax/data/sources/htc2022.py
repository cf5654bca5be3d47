"""Acrylic discs with holes, as the Helsinki Tomography Challenge 2022 has them: drawn, or its scans."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from medjax.data.discs import FIELD_MM, draw
from medjax.data.formats import htc2022
from medjax.data.limited_angle import centred
from medjax.types import Record, UserError

SCANS, TRUTH = "_limited.mat", "_recon_fbp_seg.mat"


@dataclass(frozen=True)
class Htc2022:
    """`count` drawn discs `(size, size, 1)`, 1 in acrylic and 0 in air, each its own subject; disc i follows from `seed` and
    i alone.

    With `path`, a folder or a file of it, there are in their place the challenge's scans over a limited angle
    (`*_limited.mat`), each with the segmentation of its full scan (`*_recon_fbp_seg.mat`) and centred among `views` (see
    `medjax.data.limited_angle`). In either, extras["label"] `(H, W, 1)` uint8 is the truth.
    """

    path: str = ""
    size: int = 512
    count: int = 2000
    seed: int = 0
    views: int = 181

    def load(self) -> list[Record]:
        """The records. Raises UserError for a folder without scans, a scan without its segmentation."""
        if self.path:
            return self._scans(Path(self.path).expanduser())
        if self.size < 32:
            raise UserError("config.data.source.size", f"{self.size}; give at least 32")
        numbers = tqdm(range(self.count), "drawing discs", unit="image", leave=False, delay=2)
        return [self._drawn(index) for index in numbers]

    def _drawn(self, index: int) -> Record:
        name = f"disc-{self.seed}-{index:05d}"
        disc = draw(np.random.default_rng((self.seed, index)), self.size)[..., None]
        spacing = (FIELD_MM / self.size,) * 2
        return Record(disc, name, name, spacing_mm=spacing, modality="CT", extras={"label": disc})

    def _scans(self, place: Path) -> list[Record]:
        found = sorted(place.glob(f"*{SCANS}")) if place.is_dir() else [place]
        if not found:
            raise UserError(place, f"has no scans *{SCANS} of the Helsinki Tomography Challenge 2022")
        return [self._scan(path) for path in found]

    def _scan(self, path: Path) -> Record:
        name = path.name.removesuffix(SCANS)
        truth = path.with_name(name + TRUTH)
        if not path.name.endswith(SCANS) or not truth.exists():
            raise UserError(path, f"has no {truth.name} beside it; give scans *{SCANS} with their segmentation")
        (record,) = htc2022.read((path,), name, name)
        label = htc2022.read_segmentation(truth)
        if label.shape != record.image.shape:
            raise UserError(truth, f"is {label.shape[:-1]} and its scan's image {record.image.shape[:-1]}; give them on one "
                            "grid")
        placed = centred(record, self.views)
        return replace(placed, extras=placed.extras | {"label": label})
