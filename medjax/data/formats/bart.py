"""K-space as the Berkeley Advanced Reconstruction Toolbox stores it (Uecker et al., ISMRM 2015): a `.hdr` and a `.cfl`.

The header is text with the sizes of up to 16 dimensions: readout, two phase encodings, coils, sets of maps, echoes, …,
slices at 13. The data are complex64, the first dimension fastest, and the centre of k-space is at `n // 2`.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medjax.data.formats import _kspace
from medjax.types import Record, UserError

SUFFIXES = (".hdr", ".cfl")
KIND = "kspace"
TITLE = "# Dimensions"
MAX_HEADER = 1 << 16
DIMENSIONS = 16
READOUT, PHASE_1, PHASE_2, COIL, MAPS, SLICE = 0, 1, 2, 3, 4, 13


def accepts(path: Path) -> bool:
    """A `.cfl`, or a `.hdr` that begins with the dimensions; Analyze has other files of that name."""
    return path.suffix.lower() == ".cfl" or TITLE in _text(path)


def group(files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
    """Each header with its data is a study."""
    pairs = dict.fromkeys((file.with_suffix(".hdr"), file.with_suffix(".cfl")) for file in files)
    return [(pair, "") for pair in pairs]


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """A record of all slices, or one per echo, time, …; of 3-D k-space the slices lie along the readout.

    The voxel size isn't known. Raises UserError for maps, and for what is no such file.
    """
    header, data = paths
    sizes = _sizes(header)
    try:
        stored = data.stat().st_size
        if stored != math.prod(sizes) * np.dtype(np.complex64).itemsize:
            raise UserError(data, f"has {stored} bytes, but {header.name} claims {math.prod(sizes)} complex numbers")
        kspace = np.memmap(data, np.complex64, "r", shape=tuple(sizes), order="F")
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(data, f"can't be read: {error}") from error
    if sizes[MAPS] > 1:
        raise UserError(header, f"holds {sizes[MAPS]} sets of coil maps; give k-space")
    first = [SLICE, COIL, READOUT, PHASE_1, PHASE_2]
    rest = [axis for axis in range(DIMENSIONS) if axis not in first]
    frames = kspace.transpose(*rest, *first).reshape(-1, *(sizes[axis] for axis in first))
    return _kspace.records(header, [_slices(header, frame) for frame in frames], name, subject)


def _slices(path: Path, kspace: np.ndarray) -> np.ndarray:
    """`(slices, coils, readout, phase 1, phase 2)` as `(slices, coils, H, W)`."""
    if kspace.shape[-1] == 1:
        return kspace[..., 0]
    if len(kspace) > 1:
        raise UserError(path, f"has {len(kspace)} slabs of 3-D k-space; give one")
    return _kspace.along_readout(kspace[0])


def _sizes(path: Path) -> list[int]:
    lines = _text(path).splitlines()
    try:
        sizes = [int(size) for size in lines[lines.index(TITLE) + 1].split()]
        sizes += [1] * (DIMENSIONS - len(sizes))
        if len(sizes) != DIMENSIONS or min(sizes) < 1:
            raise ValueError
        return sizes
    except (ValueError, IndexError) as error:
        raise UserError(path, f"no BART header; it has up to {DIMENSIONS} positive sizes below {TITLE!r}") from error


def _text(path: Path) -> str:
    """A header's text; "" for what can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_HEADER).decode("utf-8", "replace")
    except OSError:
        return ""
