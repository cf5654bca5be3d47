"""NIfTI-1 and NIfTI-2, one file: volumes, slices, 4-D series, RGB, any byte order, scaled, oblique."""

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from absl import logging
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from medjax.data.geometry import Orientation, resized, spacing
from medjax.data.values import finite, native, one_line, quantized
from medjax.types import Record, UserError

SUFFIXES = (".nii", ".nii.gz")
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
UNREADABLE = (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error, gzip.BadGzipFile, ImageFileError,
              HeaderDataError)


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """The volume of a file, or the frames of a 4-D one, in canonical orientation (`medjax.data.geometry`).

    A file with one slice is a 2-D record. Raises UserError for what is no NIfTI image, is damaged, or holds NaN.
    """
    (path,) = paths
    file = _load(path)
    try:
        stored = _channels(path, np.asanyarray(file.dataobj.get_unscaled()))
    except UNREADABLE as error:
        raise UserError(path, f"damaged NIfTI file: {one_line(error)}; copy it again from its source") from error
    finite(path, stored)
    affine = _affine(path, file)
    frames = [_record(file, frame, affine, name, subject) for frame in np.moveaxis(stored, 3, 0)]
    if len(frames) == 1:
        return frames
    return [_renamed(frame, f"{name}#{number:03d}") for number, frame in enumerate(frames)]


def write(target: Path, images: Sequence[np.ndarray], paths: Sequence[Path]) -> None:
    """`images` (physical units, one per record that `read(paths)` gives) as a file with the source's header and dtype.

    Images of another size keep the field of view: voxel size and origin change. Integers are rounded and clipped.
    """
    (path,) = paths
    source = _load(path)
    turn = Orientation.of(_affine(path, source))
    old_shape = _spatial(source.shape)
    frames = [turn.outside(_as_volume(image, turn, old_shape)) for image in images]
    stored = [quantized(frame, *_scale(source), source.get_data_dtype().base) for frame in frames]
    data = stored[0][..., 0] if len(stored) == 1 else np.stack([frame[..., 0] for frame in stored], -1)
    if stored[0].shape[-1] == 3:
        data = np.ascontiguousarray(stored[0]).view(RGB)[..., 0]
    if data.shape[:3] == old_shape:
        data = data.reshape(source.shape)
    affine = resized(_affine(path, source), old_shape, data.shape[:3] if data.ndim > 2 else (*data.shape, 1))
    file = type(source)(data, None, source.header)
    if data.shape != source.shape:
        file.set_sform(affine, int(source.header["sform_code"]) or 1)
        file.set_qform(affine, int(source.header["qform_code"]), strip_shears=True)
    file.header.set_slope_inter(*_scale(source))
    _save(target, file)


def write_on_grid(target: Path, image: np.ndarray, stored: Record, affine: np.ndarray) -> None:
    """`image` `(D, H, W, 1)`, in the units of `stored` and with its dtype and scale, as a file of its own.

    The file's axes run as `affine` `(4, 4)` has them (file's indices to RAS mm). Integers are rounded and clipped.
    """
    values = quantized(image[..., 0], stored.slope, stored.intercept, stored.image.dtype)
    file = nibabel.Nifti1Image(Orientation.of(affine).outside(values), affine)
    file.set_qform(affine, int(file.header["sform_code"]), strip_shears=True)
    file.header.set_slope_inter(stored.slope, stored.intercept)
    _save(target, file)


def affine_of(path: Path) -> np.ndarray:
    """The `(4, 4)` map of a file's indices to RAS mm. Raises UserError for what is no NIfTI image."""
    return _affine(path, _load(path))


def _save(target: Path, file: nibabel.Nifti1Image) -> None:
    partial = target.with_name(f".partial-{target.name}")
    try:
        file.to_filename(partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _load(path: Path) -> nibabel.Nifti1Image:
    try:
        file = nibabel.load(path)
    except UNREADABLE as error:
        raise UserError(path, f"no NIfTI image: {one_line(error)}") from error
    if not isinstance(file, nibabel.Nifti1Pair):
        raise UserError(path, f"holds {type(file).__name__.removesuffix('Image')} data; give an image in NIfTI")
    if len(file.shape) < 2 or min(file.shape) < 1 or max(file.shape[4:], default=1) > 1:
        raise UserError(path, f"has the shape {file.shape}; give 2, 3 or 4 dimensions of at least 1")
    return file


def _channels(path: Path, stored: np.ndarray) -> np.ndarray:
    """Stored values as `(I, J, K, frames, C)`."""
    if stored.dtype.names:  # RGB24, RGBA32
        stored = np.stack([stored[channel] for channel in stored.dtype.names[:3]], -1)
    else:
        stored = stored[..., None]
    *space, channels = stored.shape
    space = (*space, 1, 1)[:4] if len(space) < 4 else space[:4]
    return native(path, stored.reshape(*space, channels))


def _affine(path: Path, file: nibabel.Nifti1Image) -> np.ndarray:
    affine = file.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        logging.warning("%s: its affine is singular; taking the voxel sizes alone", path)
        affine = file.header.get_base_affine()
    return affine


def _record(file: nibabel.Nifti1Image, frame: np.ndarray, affine: np.ndarray, name: str, subject: str) -> Record:
    """A record of one frame `(I, J, K, C)`: a volume, or a 2-D image where an axis has one entry."""
    turn = Orientation.of(affine)
    image, inside = turn.inside(frame), turn.affine(affine, frame.shape[:3])
    slope, intercept = _scale(file)
    sizes = spacing(inside)
    thin = [axis for axis in range(3) if image.shape[axis] == 1]
    if thin:
        axis = thin[0]
        image, sizes, inside = image.take(0, axis), sizes[:axis] + sizes[axis + 1:], None
    return Record(np.ascontiguousarray(image), name, subject, slope, intercept, sizes, inside)


def _renamed(record: Record, name: str) -> Record:
    return Record(**{**vars(record), "id": name})


def _scale(file: nibabel.Nifti1Image) -> tuple[float, float]:
    return float(file.dataobj.slope), float(file.dataobj.inter)


def _spatial(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape, 1)[:3]


def _as_volume(image: np.ndarray, turn: Orientation, shape: tuple[int, ...]) -> np.ndarray:
    """A record's image with the axis back that a single slice has lost."""
    if image.ndim == 4:
        return image
    thin = next(inner for inner, axis in enumerate(turn.axes) if shape[axis] == 1)
    return np.expand_dims(image, thin)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
