"""Volumes with an affine as records in the project's orientation, and back on a file's axes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medjax.data.geometry import Orientation, spacing
from medjax.data.values import finite, native
from medjax.types import Record


def records(path: Path, stored: np.ndarray, affine: np.ndarray, name: str, subject: str,
            scale: tuple[float, float] = (1.0, 0.0)) -> list[Record]:
    """A record for each frame of `stored` `(I, J, K, frames, C)`; `affine` maps `(i, j, k)` to RAS mm.

    An axis with one entry makes 2-D records. Raises UserError for NaN and what are no numbers.
    """
    stored = native(path, stored)
    finite(path, stored, *scale)
    turn = Orientation.of(affine, path)
    found = [_record(frame, turn, affine, name, subject, scale) for frame in np.moveaxis(stored, 3, 0)]
    return found if len(found) == 1 else [replace(r, id=f"{name}#{number:03d}") for number, r in enumerate(found)]


def on_file_axes(path: Path, images: Sequence[np.ndarray], affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`images` `(*space, C)` of such records as `(I, J, K, frames, C)`; `shape` `(I, J, K)` is the file's."""
    turn = Orientation.of(affine, path)
    volumes = [turn.outside(_as_volume(image, turn, shape)) for image in images]
    return volumes[0][:, :, :, None] if len(volumes) == 1 else np.stack(volumes, 3)


def coloured(frames: np.ndarray, source: np.ndarray | None, channels: int) -> np.ndarray:
    """8-bit colours `(..., 1 or 3)` with `channels` 3, or 4 for alpha: that of `source` `(..., 4)` if given, else 255."""
    pixels = np.full((*frames.shape[:-1], channels), 255, np.uint8)
    pixels[..., :3] = np.clip(np.rint(frames), 0, 255)
    if channels > 3 and source is not None:
        pixels[..., 3] = source[..., 3]
    return pixels


def _record(frame: np.ndarray, turn: Orientation, affine: np.ndarray, name: str, subject: str,
            scale: tuple[float, float]) -> Record:
    """A record of one frame `(I, J, K, C)`: a volume, or a 2-D image where an axis has one entry."""
    image, inside = turn.inside(frame), turn.affine(affine, frame.shape[:3])
    sizes = spacing(inside)
    thin = [axis for axis in range(3) if image.shape[axis] == 1]
    if thin:
        image, sizes = image.take(0, thin[0]), sizes[:thin[0]] + sizes[thin[0] + 1:]
    return Record(np.ascontiguousarray(image), name, subject, *scale, spacing_mm=sizes, affine=None if thin else inside)


def _as_volume(image: np.ndarray, turn: Orientation, shape: Sequence[int]) -> np.ndarray:
    """A record's image `(*space, C)` with the axis back that a single slice has lost."""
    if image.ndim == 4:
        return image
    thin = next(inner for inner, axis in enumerate(turn.axes) if shape[axis] == 1)
    return np.expand_dims(image, thin)
