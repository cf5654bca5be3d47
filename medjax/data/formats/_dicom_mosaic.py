"""Mosaics: the slices of a volume side by side in one large image, as Siemens and United Imaging store diffusion and fMRI.

A Siemens mosaic (ImageType MOSAIC) has as many columns as rows of tiles; its CSA header says how many slices there are
and along which normal they lie, and ImagePositionPatient is that of a single slice as large as the mosaic (NiBabel's
documentation, "DICOM mosaic"). A mosaic of United Imaging (ImageType VFRAME) lists the place of each slice.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medjax.data.formats._dicom_header import numbers, texts
from medjax.types import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # NiBabel calls this module experimental
    from nibabel.nicom import csareader

GROUP, CREATOR, COUNT, PLACES = 0x0065, "Image Private Header", 0x50, 0x51  # United Imaging: slices and their places
MAX_SLICES = 4096


@dataclass(frozen=True)
class Mosaic:
    """Where the slices are: `count` tiles of `tile` (rows, columns), row by row in `canvas` `(H, W, C)`.

    `positions` `(count, 3)` are those of the centres of their first pixels (mm, DICOM's LPS).
    """

    canvas: np.ndarray
    tile: tuple[int, int]
    positions: np.ndarray

    def tiles(self) -> list[np.ndarray]:
        """The slices `(h, w, C)`, views of the canvas."""
        return [self._cut(self.canvas, index) for index in range(len(self.positions))]

    def joined(self, tiles: Sequence[np.ndarray]) -> np.ndarray:
        """The canvas with other slices in it; what lies beside them stays."""
        canvas = self.canvas.astype(tiles[0].dtype)
        for index, tile in enumerate(tiles):
            self._cut(canvas, index)[...] = tile
        return canvas

    def _cut(self, canvas: np.ndarray, index: int) -> np.ndarray:
        rows, columns = self.tile
        row, column = divmod(index, canvas.shape[1] // columns)
        return canvas[row * rows:(row + 1) * rows, column * columns:(column + 1) * columns]


def is_mosaic(dataset: Dataset) -> bool:
    return bool({"MOSAIC", "VFRAME"} & set(texts(dataset, "ImageType"))) and int(dataset.get("NumberOfFrames") or 1) == 1


def mosaic_of(path: Path, dataset: Dataset, canvas: np.ndarray, spacing: Sequence[float]) -> Mosaic:
    """The layout of a mosaic. Raises UserError where the header doesn't tell it."""
    united = "VFRAME" in texts(dataset, "ImageType")
    return _united_imaging(path, dataset, canvas) if united else _siemens(path, dataset, canvas, spacing)


def _siemens(path: Path, dataset: Dataset, canvas: np.ndarray, spacing: Sequence[float]) -> Mosaic:
    try:
        csa = csareader.get_csa_header(dataset, "image")
        count = 0 if csa is None else csareader.get_n_mosaic(csa) or 0
        normal = None if csa is None else csareader.get_slice_normal(csa)
    except Exception as error:  # a damaged header raises what its parsing meets
        raise UserError(path, "is a mosaic whose Siemens CSA header (0029,1010) is damaged") from error
    gap = numbers(path, dataset, "SpacingBetweenSlices", 1)
    position = numbers(path, dataset, "ImagePositionPatient", 3)
    directions = numbers(path, dataset, "ImageOrientationPatient", 6)
    if not count or normal is None:
        raise UserError(path, "is a mosaic without its Siemens CSA header (0029,1010), so the count and the direction of "
                              "its slices can't be known; export it again with private attributes")
    if gap is None or gap[0] <= 0 or position is None or directions is None or len(spacing) < 2:
        raise UserError(path, "is a mosaic that lacks SpacingBetweenSlices, PixelSpacing, ImagePositionPatient or "
                              "ImageOrientationPatient; export it again")
    side = math.ceil(math.sqrt(_plausible(path, count)))
    if canvas.shape[0] % side or canvas.shape[1] % side:
        raise UserError(path, f"is a mosaic of {count} slices, but its {canvas.shape[0]} x {canvas.shape[1]} pixels do not "
                              f"divide into {side} x {side} tiles")
    tile = (canvas.shape[0] // side, canvas.shape[1] // side)
    along_row, down_column = directions.reshape(2, 3)
    first = (position + (canvas.shape[1] - tile[1]) / 2 * spacing[1] * along_row
             + (canvas.shape[0] - tile[0]) / 2 * spacing[0] * down_column)
    return Mosaic(canvas, tile, first + np.arange(count)[:, None] * gap[0] * np.asarray(normal, float))


def _united_imaging(path: Path, dataset: Dataset, canvas: np.ndarray) -> Mosaic:
    try:
        block = dataset.private_block(GROUP, CREATOR)
        places = [numbers(path, item, "ImagePositionPatient", 3) for item in block[PLACES].value]
        value = block[COUNT].value
        count = int(float(value.decode() if isinstance(value, bytes) else value))
    except UserError:
        raise
    except Exception as error:  # private attributes may be missing, or of any type
        raise UserError(path, "is a mosaic of United Imaging without the list of its slices (0065,1051), so their places "
                              "can't be known; export it again with private attributes") from error
    side = max(canvas.shape[:2]) // math.ceil(math.sqrt(_plausible(path, count)))
    fits = side > 1 and canvas.shape[0] % side == 0 and canvas.shape[1] % side == 0
    if not fits or canvas.shape[0] // side * (canvas.shape[1] // side) < count:
        raise UserError(path, f"is a mosaic of {count} slices, but its {canvas.shape[0]} x {canvas.shape[1]} pixels do not "
                              "divide into so many square tiles")
    known = [place for place in places if place is not None]
    if not len(known) == len(places) == count:
        raise UserError(path, f"is a mosaic of {count} slices that lists the places of {len(known)}; export it again")
    return Mosaic(canvas, (side, side), np.stack(known))


def _plausible(path: Path, count: int) -> int:
    if not 1 <= count <= MAX_SLICES:
        raise UserError(path, f"is a mosaic that claims {count} slices; its header is damaged")
    return count
