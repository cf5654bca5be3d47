"""The ICBM152 T1 template that the nilearn wheel carries: a head for everyone, without a download."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from medjax.data.geometry import Orientation, spacing
from medjax.types import Record, UserError

FILE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


@dataclass(frozen=True)
class Icbm152:
    """One T1-weighted volume `(189, 233, 197, 1)`, 1 mm, uint8 0..255 (arbitrary units), brain only.

    The mean of 152 healthy adults, zero outside the brain (Fonov et al., NeuroImage 54, 2011). The zeros are part of the
    image and are judged with it.
    """

    def load(self) -> list[Record]:
        """The volume. Raises UserError if nilearn is not installed."""
        image, affine = volume(FILE)
        return [Record(image[..., None], "icbm152", "icbm152", spacing_mm=spacing(affine), affine=affine, modality="MR")]


def volume(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A volume `(D, H, W)` among nilearn's data and its affine (z, y, x to RAS mm). Raises UserError without nilearn."""
    package = importlib.util.find_spec("nilearn")  # importing nilearn takes seconds and needs scikit-learn
    if package is None or not package.submodule_search_locations:
        raise UserError("config.data.name", "icbm152 is a file of the package nilearn, which is not installed")
    file = nibabel.nifti1.load(Path(package.submodule_search_locations[0]) / "datasets" / "data" / name)
    turn = Orientation.of(file.affine)
    image = np.ascontiguousarray(turn.inside(np.asanyarray(file.dataobj)))
    return image, turn.affine(file.affine, file.shape)
