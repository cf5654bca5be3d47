"""Plain NumPy files."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medjax.data.values import finite, native, one_line, quantized
from medjax.types import Record, UserError

SUFFIXES = (".npy",)
MAX_CHANNELS = 4


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """`(H, W)`, `(H, W, C)`, `(D, H, W)` or `(D, H, W, C)`, taken as it lies; a last axis of up to 4 is channels.

    Raises UserError for other shapes, no numbers, NaN, or a damaged file.
    """
    (path,) = paths
    stored = native(path, _load(path))
    if stored.ndim not in (2, 3, 4) or 0 in stored.shape or (stored.ndim == 4 and stored.shape[-1] > MAX_CHANNELS):
        raise UserError(path, f"has the shape {stored.shape}; give (H, W), (D, H, W), or C up to 4 channels at the end")
    finite(path, stored)
    return [Record(stored if _has_channels(stored) else stored[..., None], name, subject)]


def write(target: Path, images: Sequence[np.ndarray], paths: Sequence[Path]) -> None:
    """An image with the axes and the dtype of the source."""
    source = _load(paths[0])
    image = quantized(images[0], 1.0, 0.0, source.dtype)
    partial = target.with_name(f".partial-{target.name}")
    try:
        with partial.open("wb") as file:
            np.save(file, image if _has_channels(source) else image[..., 0])
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(path, f"damaged or no .npy array: {one_line(error)}") from error


def _has_channels(stored: np.ndarray) -> bool:
    return stored.ndim == 4 or (stored.ndim == 3 and stored.shape[-1] <= MAX_CHANNELS)
