"""Several contrasts of one subject on one grid, a NIfTI file each: the channels of one record."""

import re
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import numpy as np

from medjax.data.formats import nifti
from medjax.types import Record, UserError

UNITS = "of the 99.9th percentile"
TOP = 4095  # what the brightest voxels of a contrast are stored as


@dataclass(frozen=True)
class MultiContrast:
    """Volumes `(D, H, W, len(contrasts))` from files that differ in their contrast's name alone.

    `path` is a pattern: `{contrast}` stands for each of `contrasts`, `*` for what tells subjects apart:
    "data/*/{contrast}.nii.gz". MR units are arbitrary, so each contrast is scaled to 0 … 1 by its own 99.9th percentile.
    A record's `contrasts` name its channels.
    """

    path: str = ""
    contrasts: tuple[str, ...] = ("T1", "T2", "FLAIR")

    def load(self) -> list[Record]:
        """The subjects in the order of their names. Raises UserError for missing files, and for grids that differ."""
        if "{contrast}" not in self.path or not self.contrasts:
            raise UserError("config.data.source.path", f"{self.path!r}; give a pattern such as DIR/*/{{contrast}}.nii.gz")
        first = self.path.replace("{contrast}", self.contrasts[0])
        found = sorted(glob(first))
        if not found:
            raise UserError("config.data.source.path", f"no file {first}")
        return [self._record(self._stars(first, name)) for name in found]

    def _stars(self, pattern: str, name: str) -> tuple[str, ...]:
        """What the stars of the pattern stand for in a file's name."""
        matched = re.fullmatch(re.escape(pattern).replace(r"\*", "([^/]*)"), name)
        assert matched is not None  # the name was found by the pattern
        return matched.groups()

    def _record(self, stars: tuple[str, ...]) -> Record:
        parts = iter(stars)
        pattern = re.sub(r"\*", lambda _: next(parts), self.path)
        name = "-".join(stars) or Path(pattern.replace("{contrast}", "")).name.split(".")[0].strip("_- ") or "subject"
        volumes = [self._volume(Path(pattern.replace("{contrast}", contrast)), name) for contrast in self.contrasts]
        one = volumes[0]
        for contrast, other in zip(self.contrasts[1:], volumes[1:], strict=True):
            if other.image.shape != one.image.shape or not _alike(one.affine, other.affine):
                raise UserError(pattern.replace("{contrast}", contrast), f"is not on the grid of {self.contrasts[0]} "
                                f"({other.image.shape[:-1]} and {one.image.shape[:-1]}, or another affine); "
                                "python -m medjax.align brings it there")
        image = np.concatenate([unit(volume.image) for volume in volumes], -1)
        return Record(image, name, name, slope=1 / TOP, spacing_mm=one.spacing_mm, affine=one.affine,
                      modality="MR", units=UNITS, contrasts=tuple(self.contrasts))

    def _volume(self, path: Path, name: str) -> Record:
        if not path.is_file():
            raise UserError(path, f"no such file, but {name} has others of {', '.join(self.contrasts)}")
        records = nifti.read([path], name, name)
        if len(records) > 1 or records[0].image.shape[-1] > 1:
            raise UserError(path, "holds several frames or colours; give one volume per contrast")
        return records[0]


def unit(image: np.ndarray) -> np.ndarray:
    """A contrast scaled so that its 99.9th percentile is stored as 4095, int16."""
    top = max(float(np.percentile(image, 99.9)), 1e-6)
    return np.clip(np.rint(image * (TOP / top)), -TOP, 2 * TOP).astype(np.int16)


def _alike(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.allclose(other, one, atol=1e-3)
