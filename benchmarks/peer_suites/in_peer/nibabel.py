"""nibabel: its reader of Siemens mosaics. medjax reads NIfTI by nibabel; its test files and tables are read in `written_here`."""

import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.nicom import dicomreaders

from in_peer import link
from in_peer.readers import on_axes, read


def versions() -> dict[str, str]:
    return {"nibabel": nibabel.__version__, "numpy": np.__version__}


def prepare() -> None:
    """There is nothing to do before its tests are imported."""


def replace() -> None:
    theirs = dicomreaders.mosaic_to_nii

    def mosaic_to_nii(data: Any) -> nibabel.Nifti1Image:
        own = theirs(data)
        with tempfile.TemporaryDirectory() as folder:
            data.save_as(Path(folder) / "mosaic.dcm", enforce_file_format=True)
            (record,) = read(Path(folder) / "mosaic.dcm")
        values, affine = on_axes(record, own.affine, own.shape)
        return nibabel.Nifti1Image(values[..., 0], affine)

    link.replace(dicomreaders, "mosaic_to_nii", mosaic_to_nii)
