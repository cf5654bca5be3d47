"""Scans over a limited angle, turned so that a network always sees the same wedge of directions."""

import dataclasses
import json

import numpy as np

from medjax.types import Record, UserError

TOLERANCE_DEG = 1e-3


def centred(record: Record, views: int) -> Record:
    """A measured record with its sinogram in the middle of `views`, as if the middle one had been taken at angle 0.

    Of the record's extras, "sinogram" becomes `(views, detectors, 1)`, 0 where nothing was measured; "measured" `(views,)`
    says where it was, 1 or 0; "turn" is the angle in radians, counter-clockwise, by which the object that seems to have been
    scanned has to be turned to lie as it did. Raises UserError for a record without a sinogram, views that are not equally
    spaced, and more of them.
    """
    if "sinogram" not in record.extras or "ct_geometry" not in record.extras:
        raise UserError(record.id, "holds an image; give a sinogram with its geometry (.npy and .json, or .mat)")
    geometry = json.loads(str(record.extras["ct_geometry"]))
    angles = np.asarray(geometry["angles_deg"], np.float64)
    sinogram = np.asarray(record.extras["sinogram"])
    if len(angles) > views:
        raise UserError(record.id, f"has {len(angles)} views; give up to {views}, of a limited angle")
    steps = np.diff(angles)
    if len(steps) and (steps[0] == 0 or np.abs(steps - steps[0]).max() > TOLERANCE_DEG):
        raise UserError(record.id, "its views are not equally spaced")
    if len(steps) and steps[0] < 0:
        angles, sinogram = angles[::-1], sinogram[::-1]
    middle = len(angles) // 2
    first = views // 2 - middle
    placed = np.zeros((views, *sinogram.shape[1:]), np.float32)
    placed[first:first + len(angles)] = sinogram
    measured = np.zeros(views, np.float32)
    measured[first:first + len(angles)] = 1
    turn = np.asarray(np.deg2rad(angles[middle]), np.float32)
    return dataclasses.replace(record, extras=record.extras | {"sinogram": placed, "measured": measured, "turn": turn})
