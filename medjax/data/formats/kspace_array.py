"""K-space as complex NumPy arrays."""

from collections.abc import Sequence
from pathlib import Path

from medjax.data.formats import _kspace, _npy
from medjax.types import Record, UserError

SUFFIXES = (".npy",)
KIND = "kspace"


def accepts(path: Path) -> bool:
    """A file of complex numbers."""
    dtype = _npy.dtype_of(path)
    return dtype is not None and dtype.kind == "c"


def group(files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
    """Each file is a study."""
    return [((file,), "") for file in files]


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """Centred Cartesian k-space `(slices, coils, H, W)`, or one slice `(coils, H, W)`, the readout along H.

    Raises UserError for other shapes, zeros, NaN, or a damaged file.
    """
    (path,) = paths
    kspace = _npy.load(path)
    if kspace.ndim not in (3, 4) or kspace.dtype.kind != "c" or 0 in kspace.shape:
        raise UserError(path, f"has the shape {kspace.shape} of {kspace.dtype}; k-space is complex, (slices, coils, H, W) "
                        "or (coils, H, W)")
    return _kspace.records(path, [kspace if kspace.ndim == 4 else kspace[None]], name, subject)
