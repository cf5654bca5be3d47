"""Plain NumPy files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medjax.data.formats import _npy
from medjax.data.values import finite, native, quantized
from medjax.files import atomic
from medjax.types import Derivation, Record, UserError

SUFFIXES = (".npy",)
KIND = "image"
MAX_CHANNELS = 4


def accepts(path: Path) -> bool:
    """Every `.npy` that holds no other kind."""
    return True


def group(files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
    """Each file is a study."""
    return [((file,), "") for file in files]


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """`(H, W)`, `(H, W, C)`, `(D, H, W)` or `(D, H, W, C)`, taken as it lies; a last axis of up to 4 is channels.

    Raises UserError for other shapes, no numbers, NaN, or a damaged file.
    """
    (path,) = paths
    mapped = _npy.load(path)
    if mapped.ndim not in (2, 3, 4) or 0 in mapped.shape or (mapped.ndim == 4 and mapped.shape[-1] > MAX_CHANNELS):
        raise UserError(path, f"has the shape {mapped.shape}; give (H, W), (D, H, W), or C up to 4 channels at the end")
    stored = np.ascontiguousarray(native(path, mapped))
    finite(path, stored)
    return [Record(stored if _has_channels(stored) else stored[..., None], name, subject)]


def write(target: Path, images: Sequence[np.ndarray], paths: Sequence[Path], derivation: Derivation) -> None:
    """An image with the axes and the dtype of the source."""
    source = _npy.load(paths[0])
    _save(target, quantized(images[0], 1.0, 0.0, source.dtype), _has_channels(source))


def write_labels(target: Path, labels: Sequence[np.ndarray], names: Sequence[str], paths: Sequence[Path],
                 derivation: Derivation) -> None:
    """A label map `(*space)` uint8; the file has no place for the names."""
    _save(target, labels[0], True)


def _save(target: Path, image: np.ndarray, whole: bool) -> None:
    with atomic(target) as unfinished, unfinished.open("wb") as file:
        np.save(file, image if whole else image[..., 0])


def _has_channels(stored: np.ndarray) -> bool:
    return stored.ndim == 4 or (stored.ndim == 3 and stored.shape[-1] <= MAX_CHANNELS)
