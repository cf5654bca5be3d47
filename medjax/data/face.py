"""The face of a head in the space of ICBM152, and what is removed of scans of heads."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from scipy import ndimage

from medjax.data.formats._removal import Removal
from medjax.data.head import BRAIN_MM, brain
from medjax.data.io import Study, discover
from medjax.types import Record, UserError

MARGIN_MM = 8.0  # around the brain of the template, that stays
BROW_MM = 3.0  # the face lies below this height,
FRONT_MM, SLOPE = 40.0, 0.375  # and in front of a plane that is there at height 0 and comes so much forward for each mm up
CT_AIR, CT_LEAST = -1000.0, -500.0  # HU
DARK = 0.12  # of the range of the values: background
MODALITIES = ("", "CT", "MR")
Locate: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From a volume and its affine to the `(4, 4)` map of its RAS mm to the template's. Raises UserError, naming "scan"."""


def is_face(points: np.ndarray) -> np.ndarray:
    """Whether points `(N, 3)` in RAS mm of ICBM152 are removed: in front of and below a bent plane from the brow to behind
    the jaw, but for the brain and what lies within 8 mm of it. Ears stay.
    """
    face = (points[:, 2] < BROW_MM) & (points[:, 1] > FRONT_MM + SLOPE * points[:, 2])
    _, distance, corner = brain()
    at = (points[face] - corner) / BRAIN_MM
    face[face] = ndimage.map_coordinates(distance, at.T, order=1, mode="nearest") > MARGIN_MM
    return face


def removals(source: Path, locate: Locate) -> Iterator[tuple[Study, "Removal | UserError", int]]:
    """Each image below `source`, what is removed of it or why nothing can be, and how many voxels of tissue that holds."""
    try:
        studies = discover(source)
    except UserError:  # holds no images
        return
    for study in studies:
        try:
            yield study, *removal_of(study.read(), locate)
        except UserError as error:
            yield study, error, 0


def removal_of(records: list[Record], locate: Locate) -> tuple[Removal, int]:
    """What is removed of the frames of one scan, and how many voxels of the first of them are tissue there.

    Raises UserError for what is no volume of CT or MR, and where no head is found.
    """
    first = records[0]
    if first.affine is None or first.image.shape[-1] > 1 or first.modality not in MODALITIES:
        raise UserError("scan", "is no volume of CT or MR with a place in space, in which a face could be found")
    volume, affine = regular(first)
    matrix = locate(volume, affine)
    low, high = np.percentile(volume, (0.5, 99.5))
    air = CT_AIR if volume.min() < CT_LEAST else float(min(record.in_units().min() for record in records))

    def holds(points: np.ndarray) -> np.ndarray:
        return is_face(points @ matrix[:3, :3].T + matrix[:3, 3])

    removal = Removal(holds, air)
    tissue = int((removal.mask(affine, volume.shape) & (volume > low + DARK * (high - low))).sum())
    return removal, tissue


def regular(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """A record's volume `(D, H, W)` and its affine; slices at unequal distances are interpolated to equal ones."""
    assert record.affine is not None
    volume, places = record.in_units((..., 0)), record.extras.get("slice_positions_mm")
    if places is None:
        return volume, record.affine
    along = places[-1] - places[0]
    axis = int(np.argmax(np.abs(along @ record.affine[:3, :3] / np.linalg.norm(record.affine[:3, :3], axis=0))))
    offsets = (places - places[0]) @ along / (along @ along)  # 0 … 1
    even = np.linspace(0, 1, max(2, round(1 / np.diff(offsets).min()) + 1))
    after = np.clip(np.searchsorted(offsets, even, side="right"), 1, len(offsets) - 1)
    share = (even - offsets[after - 1]) / (offsets[after] - offsets[after - 1])
    slices = np.moveaxis(volume, axis, 0)
    mixed = slices[after - 1] * (1 - share)[:, None, None] + slices[after] * share[:, None, None]
    affine = record.affine.copy()
    affine[:3, axis] = along / (len(even) - 1)
    return np.moveaxis(mixed.astype(np.float32), 0, axis), affine
