"""What medjax read from a file, on the axes that another reader gives it: whole axes are turned, and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from in_peer.link import call
from nibabel import orientations


def read(path: str | Path) -> list[dict[str, Any]]:
    """medjax's records of a file or folder: `image` `(D, H, W, C)` or `(H, W, C)`, slope, intercept, affine, spacing.

    Raises ValueError with the one line of medjax where it refuses the file.
    """
    return call("read", str(Path(path).absolute()))


def refusal(error: ValueError, path: str | Path) -> str:
    """What medjax says of a file that it does not read, without its name and what to do."""
    return "refused: " + str(error).removeprefix(str(path)).lstrip(": ").split(";")[0]


def on_axes(record: dict[str, Any], affine: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
    """Values `(I, J, K, C)` and affine of a record on the axes of a file with this `affine` and this `shape` `(I, J, K)`.

    medjax has volumes as `(z, y, x)` nearest to Superior, Anterior, Right. A 2-D record has lost the axis with one entry,
    and has no affine.
    """
    turn = orientations.io_orientation(affine)  # of each file axis: its place in (x, y, z), and its direction
    image = record["image"].astype(np.float64) * record["slope"] + record["intercept"]
    if image.ndim == 3:
        places = sorted((int(turn[axis, 0]) for axis in range(3) if shape[axis] == 1), reverse=True)
        image = np.expand_dims(image, 2 - places[0])  # medjax takes away the first of (z, y, x)
    ras = image.transpose(2, 1, 0, 3)
    back = orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], turn)
    values = orientations.apply_orientation(ras, back)
    if record["affine"] is None:
        return values, None
    return values, record["affine"][:, [2, 1, 0, 3]] @ orientations.inv_ornt_aff(back, ras.shape[:3])
