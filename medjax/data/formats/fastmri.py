"""K-space as fastMRI gives it out (Zbontar et al., arXiv:1811.08839, 2018): HDF5 files with a data set "kspace"."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from absl import logging

from medjax.data.formats import _hdf5, _kspace
from medjax.types import Record, UserError

SUFFIXES = (".h5",)
KIND = "kspace"
DATA, HEADER, PATIENT = "kspace", "ismrmrd_header", "patient_id"
REFERENCES = ("reconstruction_rss", "reconstruction_esc")


def accepts(path: Path) -> bool:
    """A file with "kspace" at its root, and one that can't be opened: its reading says what is wrong."""
    return _hdf5.holds(path, DATA) or not _hdf5.holds(path, "/")


def group(files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
    """Each file is a study, of the patient in its attribute "patient_id"."""
    found = _hdf5.ask([_hdf5.Request(file, attributes=(PATIENT,)) for file in files])
    return [((file,), answer.get(PATIENT, "") if isinstance(answer, dict) else "")
            for file, answer in zip(files, found, strict=True)]


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """One record of all slices (see `_kspace.records`), multi- or single-coil, the readout not cropped.

    The voxel size is known from the file's ISMRMRD header. `extras["reference"]` is the makers' reconstruction, cropped to
    the field of view, where the file has one. Raises UserError.
    """
    (path,) = paths
    (said,) = _hdf5.ask([_hdf5.Request(path, texts=(HEADER,))])
    if isinstance(said, UserError):
        raise said
    with _hdf5.opened(path) as file:
        kspace = _complex(path, file)
        reference = next((_hdf5.dataset(path, file, key)[()] for key in REFERENCES if key in file), None)
    if reference is not None and (reference.ndim != 3 or len(reference) != len(kspace) or reference.dtype.kind != "f"):
        raise UserError(path, f"has a reconstruction of the shape {reference.shape} for {len(kspace)} slices")
    encoding = _encoding(path, said.get(HEADER, ""))
    if encoding is None:
        return _kspace.records(path, [kspace], name, subject, reference=reference)
    readout, phase, slices = encoding.fov_mm
    sizes = (slices / encoding.matrix[2], readout / kspace.shape[2], phase / kspace.shape[3])
    return _kspace.records(path, [kspace], name, subject, spacing_mm=sizes, oversampling=encoding.oversampling,
                           reference=reference)


def _complex(path: Path, file: h5py.File) -> np.ndarray:
    """`(slices, coils, H, W)` complex."""
    found = _hdf5.dataset(path, file, DATA)
    if found.ndim not in (3, 4) or found.dtype.kind != "c" or 0 in found.shape:
        raise UserError(path, f"has kspace of the shape {found.shape} and {found.dtype}; k-space is complex, "
                        "(slices, coils, H, W) or, of a single coil, (slices, H, W)")
    kspace = found[()]
    return kspace[:, None] if kspace.ndim == 3 else kspace


def _encoding(path: Path, header: str) -> _kspace.Encoding | None:
    """What the header says; None without one, and with one that can't be read, for k-space is of use without it."""
    try:
        return _kspace.encoding(path, header) if header else None
    except UserError as error:
        logging.warning("%s; the voxel size is not known", error)
        return None
