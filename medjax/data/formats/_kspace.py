"""K-space of many coils as records, and what the header of ISMRMRD says of it (Inati et al., MRM 77, 2017)."""

import xml.etree.ElementTree as Xml
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medjax.data.values import one_line
from medjax.types import Record, UserError

AXES = ("x", "y", "z")
LIMITS = ("kspace_encoding_step_1", "kspace_encoding_step_2")
IN_PLANE = (-2, -1)
MAX_HEADER = 1 << 20


@dataclass(frozen=True)
class Encoding:
    """The encoded and the reconstructed space: matrix and field of view in mm along readout and both phase encodings.

    `centres` are the indices of the centre of k-space along the phase encodings, None where the header has none.
    """

    matrix: tuple[int, ...]
    fov_mm: tuple[float, ...]
    recon_matrix: tuple[int, ...]
    recon_fov_mm: tuple[float, ...]
    trajectory: str = "cartesian"
    centres: tuple[int | None, ...] = (None, None)
    patient: str = field(default="", repr=False)

    @property
    def oversampling(self) -> float:
        """How much longer than the reconstructed field of view the readout is."""
        return self.fov_mm[0] / self.recon_fov_mm[0]


def encoding(path: Path, text: bytes | str) -> Encoding:
    """The first encoding of an ISMRMRD header. Raises UserError for a damaged one."""
    text = text.encode() if isinstance(text, str) else text
    try:
        if len(text) > MAX_HEADER or b"<!DOCTYPE" in text:  # entities can grow beyond any memory
            raise ValueError("it is too long, or has a DOCTYPE")
        root = Xml.fromstring(text)
        numbers = [tuple(float(root.findtext(f"{{*}}encoding/{{*}}{space}/{{*}}{what}/{{*}}{axis}", "")) for axis in AXES)
                   for space in ("encodedSpace", "reconSpace") for what in ("matrixSize", "fieldOfView_mm")]
        if not all(0 < number < 1 << 20 for numbers_ in numbers for number in numbers_):
            raise ValueError(f"sizes {numbers}")
        limits = [root.findtext(f"{{*}}encoding/{{*}}encodingLimits/{{*}}{name}/{{*}}center") for name in LIMITS]
        return Encoding(tuple(map(int, numbers[0])), numbers[1], tuple(map(int, numbers[2])), numbers[3],
                        root.findtext("{*}encoding/{*}trajectory", "cartesian").lower(),
                        tuple(None if centre is None else int(centre) for centre in limits),
                        root.findtext("{*}subjectInformation/{*}patientID", ""))
    except (Xml.ParseError, ValueError, LookupError) as error:
        raise UserError(path, f"its ISMRMRD header is damaged: {one_line(error)}") from error


def records(
    path: Path, frames: Sequence[np.ndarray], name: str, subject: str, *, spacing_mm: Sequence[float] = (),
    affine: np.ndarray | None = None, oversampling: float = 1.0, reference: np.ndarray | None = None,
) -> list[Record]:
    """A record for each of `frames`, complex k-space `(slices, coils, H, W)` with its centre at `n // 2`, readout along H.

    The image is the root of the coil images' summed squares, `(slices, H, W, 1)`, zeros where nothing was sampled, in units
    in which the largest value of the file is 1. `extras["kspace"]` has the same grid and scale, float32, the coils' real
    parts and then their imaginary parts as channels; `extras["reference"]`, where given, is in the same units on a grid of
    its own. `extras["readout_oversampling"]` is how much the field of view along H exceeds what was asked for,
    `extras["volume_max"]` the largest value of the reference, or without one of the record's image. One slice makes 2-D
    records. Raises UserError for zeros and NaN.
    """
    images = [_combined(kspace) for kspace in frames]
    top = max(float(image.max()) for image in images)
    if not np.isfinite(top) or top <= 0:
        raise UserError(path, "holds no numbers but zeros, or NaN; give measured k-space")
    found = []
    for number, (kspace, image) in enumerate(zip(frames, images, strict=True)):
        extras = {"kspace": to_channels(kspace, top), "readout_oversampling": np.array(oversampling, np.float32)}
        if reference is not None:
            extras["reference"] = np.asarray(reference, np.float32)[..., None] / np.float32(top)
        image = image / np.float32(top)
        extras["volume_max"] = np.array(extras.get("reference", image).max(), np.float32)
        sizes, place = tuple(float(size) for size in spacing_mm), affine
        if len(image) == 1:
            image, sizes, place = image[0], sizes[1:], None
            extras = {key: value[0] if value.ndim else value for key, value in extras.items()}
        id_ = name if len(frames) == 1 else f"{name}#{number:03d}"
        found.append(Record(image, id_, subject, spacing_mm=sizes, affine=place, modality="MR", extras=extras))
    return found


def along_readout(kspace: np.ndarray) -> np.ndarray:
    """3-D k-space `(coils, readout, phase 1, phase 2)` as 2-D k-space `(readout, coils, phase 1, phase 2)`.

    The readout is always sampled in full, so its transform is an image's axis, along which each slice stands alone.
    """
    return np.moveaxis(to_image(kspace, (1,)), 1, 0)


def to_channels(kspace: np.ndarray, top: float = 1.0) -> np.ndarray:
    """Complex `(slices, coils, H, W)`, divided by `top`, as `(slices, H, W, 2 coils)` float32."""
    slices, coils, *plane = kspace.shape
    channels = np.empty((slices, *plane, 2 * coils), np.float32)
    for out, one in zip(channels, kspace, strict=True):
        np.divide(np.moveaxis(one.real, 0, -1), top, out=out[..., :coils], casting="same_kind")
        np.divide(np.moveaxis(one.imag, 0, -1), top, out=out[..., coils:], casting="same_kind")
    return channels


def to_complex(channels: np.ndarray) -> np.ndarray:
    """`(..., H, W, 2 coils)` as complex `(..., coils, H, W)`: the inverse."""
    real, imaginary = np.split(np.moveaxis(channels, -1, -3), 2, axis=-3)
    return real + 1j * imaginary


def _combined(kspace: np.ndarray) -> np.ndarray:
    """The root of the coil images' summed squares, `(slices, H, W, 1)` float32, a slice at a time."""
    images = np.empty((len(kspace), *kspace.shape[2:], 1), np.float32)
    for image, coils in zip(images, kspace, strict=True):
        with np.errstate(all="ignore"):  # what isn't finite is said in one place
            image[..., 0] = np.sqrt(np.square(np.abs(to_image(coils, IN_PLANE))).sum(0))
    return images


def to_image(kspace: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """The orthonormal inverse transform of k-space along `axes`, centres at `n // 2`."""
    return np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(kspace, axes), axes=axes, norm="ortho"), axes)


def to_kspace(image: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """The orthonormal transform of images along `axes`, centres at `n // 2`."""
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(image, axes), axes=axes, norm="ortho"), axes)
