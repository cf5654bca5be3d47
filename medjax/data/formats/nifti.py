"""NIfTI-1 and NIfTI-2, one file: volumes, slices, 4-D series, RGB, any byte order, scaled, oblique."""

import gzip
import json
import math
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import nibabel
import numpy as np
from absl import logging
from nibabel.cifti2 import Cifti2HeaderError
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Extension
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.wrapstruct import WrapStructError

from medjax.data.formats import _volume
from medjax.data.formats._removal import Removal
from medjax.data.geometry import TO_RAS, Orientation, resized, spans_space
from medjax.data.values import DEFLATE, one_line, possible, quantized
from medjax.files import atomic, write_atomically
from medjax.types import Derivation, Record, UserError

SUFFIXES = (".nii", ".nii.gz")
KIND = "image"
MM = {1: 1e3, 2: 1.0, 3: 1e-3}  # by the header's code of the unit of length: metre, millimetre, micrometre
UNITS = 7  # the bits of xyzt_units that are about length
UNUSED = ("extents", "session_error", "glmax", "glmin")  # left of Analyze
COMPRESSION = 6
DAMAGE = (OSError, EOFError, ValueError, OverflowError, MemoryError, KeyError, TypeError, IndexError, AttributeError,
          struct.error, zlib.error, gzip.BadGzipFile, ExpatError, ImageFileError, HeaderDataError, HeaderTypeError,
          WrapStructError, Cifti2HeaderError)


def accepts(path: Path) -> bool:
    """Every file with one of the suffixes that holds no other kind."""
    return True


def group(files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
    """Each file is a study."""
    return [((file,), "") for file in files]


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """The volume of a file, or the frames of a 4-D one, in canonical orientation (`medjax.data.geometry`).

    A file with one slice is a 2-D record. Raises UserError for what is no NIfTI image, is damaged, or holds NaN.
    """
    (path,) = paths
    file = _load(path)
    stored = _raw(path, file)[..., :3]  # the alpha of a colour is left out
    return _volume.records(path, stored, _affine(path, file), name, subject, _scale(file))


def write(target: Path, images: Sequence[np.ndarray], paths: Sequence[Path], derivation: Derivation) -> None:
    """`images` (physical units, one per record that `read(paths)` gives) as a file with the source's header and dtype.

    Images of another size keep the field of view: voxel size and origin change. Integers are rounded and clipped. The
    header's description says what made them.
    """
    (path,) = paths
    source = _load(path)
    affine, old_shape = _affine(path, source), _spatial(source.shape)
    frames = _volume.on_file_axes(path, images, affine, old_shape)
    dtype = source.get_data_dtype()
    if dtype.names:
        same = frames.shape[:3] == old_shape
        data = _volume.coloured(frames, _raw(path, source) if same else None, len(dtype.names)).view(dtype)[..., 0]
    elif frames.shape[-1] == 1:
        data = quantized(frames[..., 0], *_scale(source), dtype)
    else:
        raise UserError(target, f"{frames.shape[-1]} channels can't be written as {path.name} is, with one")
    data = data.reshape(source.shape) if data.shape[:3] == old_shape else data[..., 0] if len(images) == 1 else data
    file = type(source)(data, None, source.header)
    if data.shape != source.shape:
        grid = np.diag([*[1 / _mm(source)] * 3, 1]) @ resized(affine, old_shape, frames.shape[:3])
        file.set_sform(grid, int(source.header["sform_code"]) or 1)
        file.set_qform(grid, int(source.header["qform_code"]), strip_shears=True)
    file.header.set_slope_inter(*_scale(source))
    _describe(file, derivation)
    _save(target, file)


def write_labels(target: Path, labels: Sequence[np.ndarray], names: Sequence[str], paths: Sequence[Path],
                 derivation: Derivation) -> None:
    """Label maps `(*space)` uint8 on the source's grid, the names as JSON in a comment of the header."""
    (path,) = paths
    source = _load(path)
    frames = _volume.on_file_axes(path, [label[..., None] for label in labels], _affine(path, source),
                                  _spatial(source.shape))
    header = source.header.copy()
    header.set_data_dtype(np.uint8)
    header["cal_min"] = header["cal_max"] = 0
    file = type(source)(frames.reshape(source.shape), None, header)
    file.header.set_intent("label", (), "labels")
    file.header.set_slope_inter(1.0, 0.0)
    file.header.extensions.append(Nifti1Extension("comment", json.dumps({"labels": list(names)}).encode()))
    _describe(file, derivation)
    _save(target, file)


def write_bare(target: Path, path: Path, removal: Removal | None = None) -> None:
    """The file with its values, scale and geometry, byte for byte, and without texts and extensions. Raises UserError.

    Voxels of a `removal` get its value, in every frame.
    """
    source = _load(path)
    if not isinstance(source, nibabel.Nifti1Image):
        raise UserError(path, "is one file of a pair; write it as one file in NIfTI")
    compressed, kind = path.name.lower().endswith(".gz"), source.header_class
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            header = kind.from_fileobj(file, check=False)
            size = math.prod(map(int, source.shape)) * source.get_data_dtype().itemsize
            file.seek(int(header["vox_offset"]))
            values = file.read(size)
    except DAMAGE as error:
        raise UserError(path, f"damaged NIfTI file: {one_line(error)}; copy it again from its source") from error
    if len(values) != size:
        raise UserError(path, f"holds {len(values)} bytes of values, not {size}; copy it again")
    if removal is not None:
        values = _without(values, path, source, removal)
    fields = header.structarr
    for name in fields.dtype.names:
        if fields.dtype[name].kind == "S" and name != "magic":
            fields[name] = b""
    for name in set(UNUSED) & set(fields.dtype.names):
        fields[name] = 0
    fields["vox_offset"] = kind.single_vox_offset
    whole = header.binaryblock.ljust(kind.single_vox_offset, b"\0") + values
    write_atomically(target, gzip.compress(whole, COMPRESSION, mtime=0) if compressed else whole)


def _without(values: bytes, path: Path, source: Any, removal: Removal) -> bytes:
    """The values of a file with those of the removal in their place."""
    dtype = source.get_data_dtype()
    array = np.frombuffer(values, dtype).reshape(source.shape, order="F").copy(order="F")
    mask = removal.mask(_affine(path, source), _spatial(source.shape)).reshape(source.shape[:3])
    array[mask] = np.zeros((), dtype) if dtype.names else quantized(np.array(removal.fill), *_scale(source), dtype)
    return array.tobytes(order="F")


def write_on_grid(target: Path, image: np.ndarray, stored: Record, affine: np.ndarray) -> None:
    """`image` `(D, H, W, 1)`, in the units of `stored` and with its dtype and scale, as a file of its own.

    The file's axes run as `affine` `(4, 4)` has them (file's indices to RAS mm). Integers are rounded and clipped.
    """
    values = quantized(image[..., 0], stored.slope, stored.intercept, stored.image.dtype)
    file = nibabel.Nifti1Image(Orientation.of(affine).outside(values), affine)
    file.header.set_xyzt_units("mm")
    file.set_qform(affine, int(file.header["sform_code"]), strip_shears=True)
    file.header.set_slope_inter(stored.slope, stored.intercept)
    _save(target, file)


def write_image(target: Path, image: np.ndarray, record: Record) -> None:
    """`image` `(*space, C)` as float32 in the geometry of `record`, over whose field of view it lies; C > 1 are frames."""
    data = _on_file_axes(image)
    file = nibabel.Nifti1Image(data[..., 0] if data.shape[-1] == 1 else data, _grid(image, record))
    file.header.set_xyzt_units("mm")
    _save(target, file)


def write_vectors(target: Path, image: np.ndarray, record: Record) -> None:
    """A vector field `(*space, C)` in mm along the array's axes as vectors in LPS mm, intent "vector", in that geometry.

    That is what ITK and ANTs expect of a displacement field.
    """
    grid = _grid(image, record)
    directions = TO_RAS[:, None] * grid[:3, :3] / np.linalg.norm(grid[:3, :3], axis=0)  # of the file's axes, LPS
    axes = image.shape[-1]
    file = nibabel.Nifti1Image(_on_file_axes(image[..., ::-1] @ directions[:axes, :axes].T)[:, :, :, None], grid)
    file.header.set_intent("vector", (), "displacement")
    file.header.set_xyzt_units("mm")
    _save(target, file)


def affine_of(path: Path) -> np.ndarray:
    """The `(4, 4)` map of a file's indices to RAS mm. Raises UserError for what is no NIfTI image."""
    return _affine(path, _load(path))


def values_of(path: Path) -> np.ndarray:
    """The values of a file as it lies, `(I, J, …)` with its slope and intercept. Raises UserError."""
    file = _load(path)
    slope, intercept = _scale(file)
    with np.errstate(all="ignore"):  # who asks for them looks whether they are finite
        return _raw(path, file)[..., 0].reshape(file.shape) * slope + intercept


def _on_file_axes(image: np.ndarray) -> np.ndarray:
    """`(D, H, W, C)` or `(H, W, C)` as `(W, H, D or 1, C)` float32."""
    turned = image.transpose(2, 1, 0, 3) if image.ndim == 4 else image.transpose(1, 0, 2)[:, :, None]
    return np.ascontiguousarray(turned, np.float32)


def _grid(image: np.ndarray, record: Record) -> np.ndarray:
    """From the indices of `_on_file_axes(image)` to RAS mm; of a record without an affine from its spacing."""
    if record.affine is not None:
        return resized(record.affine, record.image.shape[:-1], image.shape[:-1])[:, [2, 1, 0, 3]]
    sizes = record.spacing_mm or (1.0,) * record.ndim
    fitted = [size * old / new for size, old, new in zip(sizes, record.image.shape, image.shape, strict=False)]
    return np.diag([*fitted[::-1], *[1.0] * (4 - len(fitted))])


def _describe(file: Any, derivation: Derivation) -> None:
    """What made the file, in the 80 bytes that the header has for free text."""
    if derivation.text:
        file.header["descrip"] = derivation.text.encode("ascii", "replace")[:80]


def _save(target: Path, file: Any) -> None:
    with atomic(target) as unfinished:
        file.to_filename(unfinished)


def _load(path: Path) -> Any:
    """The file with its header read and checked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of extensions of odd sizes: they don't concern the image
            file = nibabel.load(path)
        size = path.stat().st_size
    except DAMAGE as error:
        raise UserError(path, f"no NIfTI image: {one_line(error)}") from error
    if not isinstance(file, nibabel.Nifti1Pair):
        raise UserError(path, f"holds {type(file).__name__.removesuffix('Image')} data; give an image in NIfTI")
    if len(file.shape) < 2 or min(file.shape) < 1 or max(file.shape[4:], default=1) > 1:
        raise UserError(path, f"has the shape {file.shape}; give 2, 3 or 4 dimensions of at least 1")
    claimed = math.prod(map(int, file.shape)) * file.get_data_dtype().itemsize
    possible(path, claimed, size, DEFLATE if path.name.lower().endswith(".gz") else 1)
    return file


def _raw(path: Path, file: Any) -> np.ndarray:
    """Stored values as `(I, J, K, frames, C)`, colours with their alpha."""
    try:
        stored = _to_the_end(path, file) if path.name.lower().endswith(".gz") else np.asanyarray(file.dataobj.get_unscaled())
    except DAMAGE as error:
        raise UserError(path, f"damaged NIfTI file: {one_line(error)}; copy it again from its source") from error
    stored = stored.reshape((*stored.shape, 1, 1)[:4])
    if stored.dtype.names:  # RGB24, RGBA32
        return np.stack([stored[channel] for channel in stored.dtype.names], -1)
    return stored[..., None]


def _to_the_end(path: Path, file: Any) -> np.ndarray:
    """Stored values of a gzip file, which is read on behind them: its checksum is at the end."""
    with gzip.open(path) as stream:
        stored = np.asanyarray(type(file).from_stream(stream).dataobj.get_unscaled())
        while stream.read(1 << 20):
            pass
    return stored


def _affine(path: Path, file: Any) -> np.ndarray:
    """From the file's indices to RAS mm, whatever unit of length the file has."""
    affine = file.affine
    if not spans_space(affine):
        logging.warning("%s: its affine is singular; taking the voxel sizes alone", path)
        affine = file.header.get_base_affine()
    return np.diag([*[_mm(file)] * 3, 1]) @ affine


def _mm(file: Any) -> float:
    """How many millimetres the header's unit of length is; an unknown one counts as mm."""
    return MM.get(int(file.header["xyzt_units"]) & UNITS, 1.0)


def _scale(file: Any) -> tuple[float, float]:
    return float(file.dataobj.slope), float(file.dataobj.inter)


def _spatial(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape, 1)[:3]
