"""CT sinograms as `.npy` or NIfTI, with the JSON of their geometry beside them (`scan.npy` and `scan.json`).

The array is `(views, detectors)` of line integrals (no unit), axes of one entry aside; of NIfTI the first axis of the file
is the views. `medjax.data.ct_geometry` says what the JSON holds.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medjax.data import ct_geometry
from medjax.data.formats import _npy, _sinogram, nifti
from medjax.types import Record, UserError

SUFFIXES = (".npy", ".nii", ".nii.gz")
KIND = "sinogram"


def accepts(path: Path) -> bool:
    """A file with the JSON of a geometry beside it."""
    return ct_geometry.is_geometry(_beside(path))


def group(files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
    """Each file with its geometry is a study."""
    return [((file, _beside(file)), "") for file in files]


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """The sinogram with its image by filtered back-projection (see `_sinogram.record`). Raises UserError."""
    path, beside = paths
    geometry = ct_geometry.read(beside)
    stored = _npy.load(path) if path.suffix.lower() == ".npy" else nifti.values_of(path)
    if max(stored.shape[2:], default=1) > 1 or stored.ndim < 2:
        raise UserError(path, f"has the shape {stored.shape}; give (views, detectors)")
    return [_sinogram.record(path, np.asarray(stored).reshape(stored.shape[:2]), geometry, name, subject)]


def _beside(path: Path) -> Path:
    suffix = next(suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(suffix))
    return path.with_name(path.name[:len(path.name) - len(suffix)] + ".json")
