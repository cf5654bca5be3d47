"""Raw MR data: fastMRI files (`.h5`), or k-space as NumPy arrays (`.npy`)."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from medjax.physics.espirit import espirit
from medjax.types import Record, UserError

SUFFIXES = (".h5", ".npy")


@dataclass(frozen=True)
class Kspace:
    """Every file in `path`, or that file, centred Cartesian k-space: `(slices, coils, H, W)`, one slice `(coils, H, W)`.

    A fastMRI file holds it as "kspace" (Zbontar et al., 2018; single-coil: `(slices, H, W)`). The image of a record is the
    root of the coil images' summed squares, `(slices, H, W, 1)` or `(H, W, 1)`, zeros where nothing was sampled, in units
    in which the largest value of a file is 1; `extras["kspace"]` has the same grid and scale, float32, the coils' real
    parts and then their imaginary parts as channels. With `calibration` > 0, `extras["maps"]` holds the coils' ESPIRiT
    sensitivities in the same form, from a full centre of that width. The subject is the file's attribute "patient_id" where
    it has one, else the file; all are held in memory.
    """

    path: str = ""
    calibration: int = 0

    def load(self) -> list[Record]:
        """The records. Raises UserError."""
        records = [self.record(file) for file in self.files()]
        for record in records:
            if record.extras["kspace"].shape[-1] != records[0].extras["kspace"].shape[-1]:
                raise UserError(record.id, f"has {record.extras['kspace'].shape[-1] // 2} coils, {records[0].id} "
                                f"{records[0].extras['kspace'].shape[-1] // 2}; give files of one kind")
        return records

    def files(self) -> list[Path]:
        """The files there are, by name. Raises UserError."""
        if not self.path:
            raise UserError("config.data.source.path", "is empty; give a .h5 or .npy file of k-space, or a folder of them")
        place = Path(self.path).expanduser()
        files = sorted(p for p in place.rglob("*") if p.suffix in SUFFIXES) if place.is_dir() else [place]
        if not files or not all(p.exists() and p.suffix in SUFFIXES for p in files):
            raise UserError(place, "holds no k-space; give a .h5 or .npy file, or a folder of them")
        return files

    def record(self, file: Path) -> Record:
        """The record of one file. Raises UserError."""
        place = Path(self.path).expanduser()
        return _record(file, place if place.is_dir() else place.parent, self.calibration)


def subject_of(file: Path) -> str:
    """Whose k-space a file holds: fastMRI's attribute "patient_id", "" where there is none. Raises UserError."""
    if file.suffix != ".h5":
        return ""
    try:
        with h5py.File(file) as stored:
            return str(stored.attrs.get("patient_id", ""))
    except OSError as error:
        raise UserError(file, f"damaged, or no k-space: {str(error).splitlines()[0]}") from error


def _record(file: Path, folder: Path, calibration: int) -> Record:
    kspace = _read(file)
    images = np.sqrt(np.square(np.abs(_coil_images(kspace))).sum(1))
    top = float(images.max())
    if not np.isfinite(top) or top == 0:
        raise UserError(file, "holds no numbers but zeros, or NaN; give measured k-space")
    image, extras = (images / top)[..., None].astype(np.float32), {"kspace": _channels(kspace / top)}
    if calibration:
        extras["maps"] = _channels(np.stack([np.asarray(espirit(k, calibration)) for k in kspace]))
    if len(image) == 1:
        image, extras = image[0], {key: value[0] for key, value in extras.items()}
    name = str(file.relative_to(folder).with_suffix(""))
    return Record(image, name, subject_of(file) or name, modality="MR", extras=extras)


def _read(file: Path) -> np.ndarray:
    """`(slices, coils, H, W)` complex."""
    try:
        if file.suffix == ".npy":
            kspace = np.load(file)
        else:
            with h5py.File(file) as stored:
                if "kspace" not in stored:
                    raise UserError(file, f"has no data set kspace, only {', '.join(stored) or 'nothing'}")
                kspace = stored["kspace"][()]
                if kspace.ndim == 3:  # single-coil: slices first
                    kspace = kspace[:, None]
    except (OSError, ValueError, EOFError) as error:
        raise UserError(file, f"damaged, or no k-space: {str(error).splitlines()[0]}") from error
    kspace = kspace[None] if kspace.ndim == 3 else kspace
    if kspace.ndim != 4 or not np.iscomplexobj(kspace) or 0 in kspace.shape:
        raise UserError(file, f"has the shape {kspace.shape} of {kspace.dtype}; k-space is complex, (slices, coils, H, W) "
                        "or (coils, H, W)")
    return kspace


def _channels(coils: np.ndarray) -> np.ndarray:
    """Complex `(slices, coils, H, W)` as `(slices, H, W, 2 coils)` float32."""
    return np.ascontiguousarray(np.moveaxis(np.concatenate([coils.real, coils.imag], 1), 1, -1), np.float32)


def _coil_images(kspace: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes), axes=axes, norm="ortho"), axes)
