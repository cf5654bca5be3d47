"""Raw MR data of ISMRMRD (Inati et al., MRM 77, 2017): HDF5 files with a group of a header "xml" and acquisitions "data"."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from absl import logging

from medjax.data.formats import _hdf5, _kspace
from medjax.data.geometry import TO_RAS
from medjax.data.values import possible
from medjax.types import Record, UserError

SUFFIXES = (".h5", ".mrd")
KIND = "kspace"
MEMBERS = ("data", "xml")
NO_IMAGE = {19: "noise", 23: "navigation", 24: "phase correction", 26: "feedback", 27: "dummy scans",
            28: "feedback", 29: "surface coil correction", 30: "phase stabilisation", 31: "phase stabilisation"}
"""The flags, counted from 1, of acquisitions that are no lines of the image."""
CALIBRATION, CALIBRATION_AND_IMAGE, REVERSED = 20, 21, 22
FRAMES = ("contrast", "phase", "repetition", "set")
COUNTERS = ("kspace_encode_step_1", "kspace_encode_step_2", "slice", *FRAMES)
HEAD = ("flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample",
        "encoding_space_ref", "position", "read_dir", "phase_dir", "slice_dir", "idx")
SPARSEST = 512  # the grid may have so many times the samples that were measured: acceleration, zero filling


@dataclass(frozen=True)
class Lines:
    """The acquisitions of an image: the fields of their headers, and their samples `(coils, samples)` each."""

    head: np.ndarray
    samples: list[np.ndarray]


def accepts(path: Path) -> bool:
    """A file with a group of a header and acquisitions."""
    return bool(_group(path))


def group(files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
    """Each file is a study, of the patient that its header names."""
    found = _hdf5.ask([_hdf5.Request(file, texts=(f"{_group(file)}/xml",)) for file in files])
    return [((file,), _patient(file, answer)) for file, answer in zip(files, found, strict=True)]


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """A record of all slices (see `_kspace.records`), or one per contrast, cardiac phase, repetition and set.

    Lines lie where their encoding counters say, the readout along H without its oversampling; averages are averaged, what
    was not measured (acceleration, partial Fourier) is zero, and acquisitions of noise, navigators and the like are left
    out. Of 3-D k-space the slices lie along the readout. The affine follows from the lines' position and directions; the
    images lie as they were acquired. Raises UserError for other than Cartesian trajectories.
    """
    (path,) = paths
    with _hdf5.opened(path) as file:
        where = _members(path, file).name
    (said,) = _hdf5.ask([_hdf5.Request(path, texts=(f"{where}/xml",), lists=(f"{where}/data",))])
    if isinstance(said, UserError):
        raise said
    encoding = _kspace.encoding(path, said[f"{where}/xml"])
    with _hdf5.opened(path) as file:
        lines = _lines(path, _hdf5.dataset(path, file[where], "data"))
    if encoding.trajectory != "cartesian":
        raise UserError(path, f"has a {encoding.trajectory} trajectory; give Cartesian k-space")
    columns = encoding.matrix[0]
    kept = max(1, min(columns, round(columns / encoding.oversampling)))
    grids = [_cropped(grid, kept) for grid in _grids(path, encoding, lines)]
    sizes = [fov / n for fov, n in zip(encoding.fov_mm, encoding.matrix, strict=True)]
    affine = _affine(encoding, lines.head, kept, sizes)
    if encoding.matrix[2] > 1:  # (1, coils, readout, phase 1, phase 2)
        frames, order = [_kspace.along_readout(grid[0]) for grid in grids], [0, 1, 2]
    else:
        frames, order = [grid[..., 0] for grid in grids], [2, 0, 1]
    if affine is not None:
        affine = affine[:, [*order, 3]]
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
    else:
        spacing = [sizes[axis] for axis in order]
    return _kspace.records(path, frames, name, subject, spacing_mm=spacing, affine=affine)


def _lines(path: Path, stored: h5py.Dataset) -> Lines:
    """What is of the image among all acquisitions."""
    names = stored.dtype.names or ()
    head = stored.dtype["head"] if "head" in names else np.dtype([])
    lacking = [field for field in HEAD if field not in (head.names or ())]
    lacking = lacking or [field for field in COUNTERS if field not in (head["idx"].names or ())]
    if lacking or "data" not in names or stored.ndim != 1:
        raise UserError(path, f"its acquisitions have no {', '.join(lacking) or 'samples'}; is it ISMRMRD?")
    head = stored["head"]
    image = (head["encoding_space_ref"] == 0) & ~(_flag(head, CALIBRATION) & ~_flag(head, CALIBRATION_AND_IMAGE))
    for bit, what in NO_IMAGE.items():
        left_out = image & _flag(head, bit)
        if left_out.any():
            logging.info("%s: %d acquisitions of %s left out", path, int(left_out.sum()), what)
        image &= ~left_out
    if not image.any():
        raise UserError(path, "has no acquisitions of an image")
    numbers = np.flatnonzero(image)
    data, head = stored["data"][numbers[0]:numbers[-1] + 1], head[image]
    samples = []
    for number, one, backwards in zip(numbers, head, _flag(head, REVERSED), strict=True):
        shape = (int(one["active_channels"]), int(one["number_of_samples"]))
        values = np.asarray(data[number - numbers[0]], np.float32)
        if 0 in shape or shape[0] != head["active_channels"][0] or values.size != 2 * math.prod(shape):
            raise UserError(path, f"acquisition {number} has {values.size} numbers for {shape} complex samples")
        line = values.view(np.complex64).reshape(shape)
        samples.append(line[:, ::-1] if backwards else line)
    return Lines(head, samples)


def _flag(head: np.ndarray, bit: int) -> np.ndarray:
    """Which acquisitions have a flag."""
    return head["flags"].astype(np.uint64) >> np.uint64(bit - 1) & np.uint64(1) > 0


def _grids(path: Path, encoding: _kspace.Encoding, lines: Lines) -> list[np.ndarray]:
    """K-space `(slices, coils, readout, phase 1, phase 2)` of each frame, centres at `n // 2`."""
    index, coils = lines.head["idx"], len(lines.samples[0])
    slices, which = np.unique(index["slice"], return_inverse=True)
    keys, frame = np.unique(np.stack([index[name] for name in FRAMES], -1), axis=0, return_inverse=True)
    shape = (len(slices), coils, *encoding.matrix)
    measured = sum(line.size for line in lines.samples)
    possible(path, len(keys) * math.prod(shape), measured, SPARSEST)
    if encoding.matrix[2] > 1 and len(slices) > 1:
        raise UserError(path, f"has {len(slices)} slabs of 3-D k-space; give one")
    grids = [np.zeros(shape, np.complex64) for _ in keys]
    counts = np.zeros((len(keys), len(slices), *encoding.matrix[1:]), np.int32)
    at = _places(path, encoding, index)
    for number, line in enumerate(lines.samples):
        one, place = lines.head[number], (which[number], slice(None))
        start, line = _trimmed(line, one, encoding.matrix[0])
        y, z = at[number]
        grids[frame[number]][*place, start:start + line.shape[1], y, z] += line
        counts[frame[number], which[number], y, z] += 1
    for grid, times in zip(grids, counts, strict=True):
        grid /= np.maximum(times, 1)[:, None, None]
    return [grid[_order(lines.head, which)] for grid in grids]


def _places(path: Path, encoding: _kspace.Encoding, index: np.ndarray) -> np.ndarray:
    """Where the lines lie along both phase encodings, `(lines, 2)`. Raises UserError for places outside of the matrix."""
    places = []
    for axis, (size, centre) in enumerate(zip(encoding.matrix[1:], encoding.centres, strict=True), start=1):
        steps = index[f"kspace_encode_step_{axis}"].astype(int)
        places.append(steps + size // 2 - (size // 2 if centre is None else centre))
        if places[-1].min() < 0 or places[-1].max() >= size:
            raise UserError(path, f"has lines {steps.min()} to {steps.max()} around {centre} along phase encoding {axis}, "
                            f"where its matrix has {size}")
    return np.stack(places, -1)


def _trimmed(line: np.ndarray, head: np.ndarray, size: int) -> tuple[int, np.ndarray]:
    """Where a readout begins in the matrix, and its samples without those to be discarded or outside."""
    begin, end = int(head["discard_pre"]), line.shape[1] - int(head["discard_post"])
    shift = size // 2 - int(head["center_sample"])
    begin, end = max(begin, -shift), min(end, size - shift)
    return begin + shift, line[:, begin:max(begin, end)]


def _order(head: np.ndarray, which: np.ndarray) -> np.ndarray:
    """The slices in the order of their places along their normal; as they are counted where those aren't known."""
    first = np.unique(which, return_index=True)[1]
    return np.argsort((head["position"][first] * head["slice_dir"][first[0]]).sum(-1), kind="stable")


def _cropped(kspace: np.ndarray, kept: int) -> np.ndarray:
    """K-space of the middle `kept` columns along the readout, the third axis."""
    size = kspace.shape[2]
    if kept == size:
        return kspace
    start = size // 2 - kept // 2
    return _kspace.to_kspace(_kspace.to_image(kspace, (2,))[:, :, start:start + kept], (2,))


def _affine(encoding: _kspace.Encoding, head: np.ndarray, kept: int, sizes: Sequence[float]) -> np.ndarray | None:
    """The map of (readout, phase, slice) indices to RAS mm; None where the lines have no directions."""
    which = np.unique(head["idx"]["slice"], return_inverse=True)[1]
    first = np.unique(which, return_index=True)[1][_order(head, which)]
    places = head["position"][first].astype(float)
    axes = [head[name][first[0]].astype(float) for name in ("read_dir", "phase_dir", "slice_dir")]
    if not np.allclose([np.linalg.norm(axis) for axis in axes], 1, atol=1e-2) or not np.isfinite(places).all():
        return None
    steps = [axis * size for axis, size in zip(axes, sizes, strict=True)]
    if len(places) > 1:
        steps[2] = (places[-1] - places[0]) / (len(places) - 1)
    affine = np.eye(4)
    affine[:3, :3] = np.stack(steps, 1)
    middle = [kept // 2, encoding.matrix[1] // 2, encoding.matrix[2] // 2 if encoding.matrix[2] > 1 else 0]
    affine[:3, 3] = places[0] - affine[:3, :3] @ middle
    return np.diag([*TO_RAS, 1.0]) @ affine


def _members(path: Path, file: h5py.File) -> h5py.Group:
    """The group that has a header and acquisitions; of several (calibration scans), the one with the most acquisitions."""
    groups = [file[name] for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
    found = [one for one in groups if isinstance(one, h5py.Group) and all(
        isinstance(one.get(member), h5py.Dataset) for member in MEMBERS)]
    if not found:
        raise UserError(path, f"has no group with {' and '.join(MEMBERS)}")
    return max(found, key=lambda one: one["data"].size)


def _group(path: Path) -> str:
    try:
        with _hdf5.opened(path) as file:
            return _members(path, file).name
    except UserError:
        return ""


def _patient(path: Path, said: dict[str, str] | UserError) -> str:
    try:
        return _kspace.encoding(path, next(iter(said.values()))).patient if isinstance(said, dict) and said else ""
    except UserError:  # its reading says so
        return ""
