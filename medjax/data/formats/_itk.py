"""Images that SimpleITK reads and writes: their values and geometry, as `(I, J, K, frames, C)` with an affine in RAS mm."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from medjax.data.formats import _volume
from medjax.data.formats._removal import Removal
from medjax.data.geometry import TO_RAS, resized
from medjax.data.values import finite, native, one_line, quantized
from medjax.files import UNFINISHED
from medjax.types import Record, UserError

HEADER_BYTES = 1 << 20
MAX_CHANNELS = 4  # more values of a voxel than this are frames
DAMAGE = (RuntimeError, ValueError, TypeError, OSError, MemoryError, OverflowError, IndexError, KeyError)


@dataclass(frozen=True)
class Scan:
    """A file as it lies: `stored` `(I, J, K, frames, C)`; `pixel_frames` where the frames are the values of a voxel.

    `ndim` counts the file's axes, 2 to 4. `affine` maps `(i, j, k)` to RAS mm; of 2-D images it has the pixel sizes alone.
    """

    stored: np.ndarray
    affine: np.ndarray
    ndim: int
    pixel_frames: bool = False
    frame_step: float = 1.0
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def coloured(self) -> bool:
        """Whether the fourth channel is the alpha of a colour."""
        return self.stored.shape[-1] == 4 and self.stored.dtype == np.uint8


def head(path: Path) -> bytes:
    """What a file begins with, as far as a header may go. Raises UserError where it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(HEADER_BYTES)
    except OSError as error:
        raise UserError(path, f"can't be read: {error.strerror}") from error


def with_values(path: Path, name: str) -> list[Path]:
    """A header and the file `name` of its values, which lies beside it. Raises UserError for values in several files."""
    if not name or Path(name).name != name or name.startswith("LIST") or "%" in name or name in (".", ".."):
        raise UserError(path, f"has its values in {name or 'no file'}; they must lie in one file beside it")
    return [path, path.with_name(name)]


def files(path: Path, parts: Callable[[Path], list[Path]]) -> tuple[Path, ...]:
    """The files of a study by `parts`; a header that can't be read is alone, and its reading says what is wrong."""
    try:
        return tuple(parts(path))
    except UserError:
        return (path,)


def stored_bytes(parts: Sequence[Path], header_bytes: int) -> int:
    """How many bytes the values take in the last of a study's files. Raises UserError where that can't be read."""
    path, data = parts[0], parts[-1]
    try:
        return data.stat().st_size - (header_bytes if data == path else 0)
    except OSError as error:
        raise UserError(path, f"its data file {data.name} can't be read: {error.strerror}") from error


def load(path: Path, kind: str, mm: float = 1.0) -> Scan:
    """A file, read by ITK's reader `kind`; `mm` is the unit of its sizes. Raises UserError for what it can't read."""
    try:
        image = _sitk().ReadImage(str(path), imageIO=kind)
        stored = np.array(_sitk().GetArrayViewFromImage(image).T)
        notes = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if not key.startswith(("ITK_", "NRRD_"))}
    except DAMAGE as error:
        raise UserError(path, f"can't be read: {_why(error)}") from error
    ndim, channels = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if not 2 <= ndim <= 4:
        raise UserError(path, f"has {ndim} axes; give 2, 3 or 4")
    stored = stored[None] if channels == 1 else stored  # (C, I, J[, K[, frames]])
    stored = stored.reshape(*stored.shape[:ndim + 1], *[1] * (4 - ndim))
    frames = channels > MAX_CHANNELS
    if frames and ndim == 4:
        raise UserError(path, f"has frames of {channels} values a voxel; give up to {MAX_CHANNELS}")
    stored = np.moveaxis(stored[..., 0], 0, -1)[..., None] if frames else np.moveaxis(stored, 0, -1)
    space = min(ndim, 3)
    affine = np.eye(4)
    direction = np.reshape(image.GetDirection(), (ndim, ndim))[:space, :space]
    affine[:space, :space] = direction * np.array(image.GetSpacing())[:space] * mm
    affine[:space, 3] = np.array(image.GetOrigin())[:space] * mm
    return Scan(stored, np.diag([*TO_RAS, 1.0]) @ affine, ndim, frames, image.GetSpacing()[3] if ndim == 4 else 1.0, notes)


def records(path: Path, scan: Scan, name: str, subject: str) -> list[Record]:
    """The records of a file: volumes in canonical orientation, 2-D images as they lie, the alpha of colours left out."""
    stored = scan.stored[..., :3] if scan.coloured else scan.stored
    if scan.ndim > 2:
        return _volume.records(path, stored, scan.affine, name, subject)
    stored = native(path, stored)
    finite(path, stored)
    sizes = tuple(float(size) for size in np.linalg.norm(scan.affine[:2, :2], axis=0)[::-1])
    if not np.isfinite(sizes).all() or min(sizes) <= 0:
        raise UserError(path, f"its pixels are {sizes} mm; give positive sizes")
    found = [Record(np.ascontiguousarray(stored[:, :, 0, frame].swapaxes(0, 1)), name, subject, spacing_mm=sizes)
             for frame in range(stored.shape[3])]
    return found if len(found) == 1 else [replace(r, id=f"{name}#{number:03d}") for number, r in enumerate(found)]


def result(path: Path, scan: Scan, images: Sequence[np.ndarray]) -> Scan:
    """`scan` with `images`, one per record, in the place of its own: in its dtype, over the same field of view."""
    frames = _frames(path, scan, images)
    same = frames.shape[:3] == scan.stored.shape[:3]
    if scan.coloured:
        stored = _volume.coloured(frames, scan.stored if same else None, 4)
    elif frames.shape[-1] == scan.stored.shape[-1]:
        stored = quantized(frames, 1.0, 0.0, scan.stored.dtype)
    else:
        raise UserError(path, f"{frames.shape[-1]} channels can't be written as it is, with {scan.stored.shape[-1]}")
    return replace(scan, stored=stored, affine=resized(scan.affine, scan.stored.shape[:3], frames.shape[:3]))


def without(scan: Scan, removal: Removal | None) -> Scan:
    """`scan` with the value of the removal in the place of its voxels, in every frame."""
    if removal is None:
        return scan
    stored = scan.stored.copy()
    stored[removal.mask(scan.affine, stored.shape[:3])] = quantized(np.array(removal.fill), 1.0, 0.0, stored.dtype)
    return replace(scan, stored=stored)


def labelled(path: Path, scan: Scan, labels: Sequence[np.ndarray], names: Sequence[str]) -> Scan:
    """`scan` with label maps `(*space)` in the place of its values, and the `names` of the classes in the header."""
    frames = _frames(path, scan, [label[..., None] for label in labels])
    return replace(scan, stored=frames, notes=scan.notes | {"labels": json.dumps(list(names))})


def encoded(target: Path, scan: Scan, kind: str, suffix: str, compressed: bool) -> bytes:
    """The bytes of a file with the name `suffix`, header and values in one, by ITK's writer `kind`; sizes in mm.

    It is written in a folder beside `target` that is gone afterwards. Raises UserError.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=target.parent) as folder:
            whole = Path(folder, f"whole{suffix}")
            _sitk().WriteImage(_image(scan), str(whole), compressed, imageIO=kind)
            return whole.read_bytes()
    except DAMAGE as error:
        raise UserError(target, f"can't be written: {_why(error)}") from error


def _image(scan: Scan) -> Any:
    """ITK's image of a scan."""
    values = scan.stored[..., 0] if scan.pixel_frames else scan.stored
    values = values.reshape(*values.shape[:scan.ndim], values.shape[-1])  # axes that the file hasn't have one entry
    vector = scan.pixel_frames or values.shape[-1] > 1
    array = values.transpose(*reversed(range(scan.ndim)), scan.ndim)
    image = _sitk().GetImageFromArray(np.ascontiguousarray(array if vector else array[..., 0]), isVector=vector)
    affine = np.diag([*TO_RAS, 1.0]) @ scan.affine
    space = min(scan.ndim, 3)
    sizes = np.linalg.norm(affine[:space, :space], axis=0)
    direction = np.eye(scan.ndim)
    direction[:space, :space] = affine[:space, :space] / sizes
    image.SetSpacing([*map(float, sizes), *[scan.frame_step] * (scan.ndim - space)])
    image.SetOrigin([*map(float, affine[:space, 3]), *[0.0] * (scan.ndim - space)])
    image.SetDirection(direction.ravel().tolist())
    for key, value in scan.notes.items():
        image.SetMetaData(key, value)
    return image


@cache
def _sitk() -> ModuleType:
    """SimpleITK, which takes a second to import, and only these files need it."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def _frames(path: Path, scan: Scan, images: Sequence[np.ndarray]) -> np.ndarray:
    """`images` `(*space, C)` on the file's axes, `(I, J, K, frames, C)`."""
    if scan.ndim > 2:
        return _volume.on_file_axes(path, images, scan.affine, scan.stored.shape[:3])
    return np.stack([image.swapaxes(0, 1)[:, :, None] for image in images], 3)


def _why(error: BaseException) -> str:
    """The last line of ITK's message, which is about the file."""
    return one_line(error).rpartition("ITK ERROR: ")[2][-200:]
