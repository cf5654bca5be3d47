"""Voxels that are taken out of a file: where they are, in mm, and what stands in their place."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

AT_ONCE = 1 << 20  # points


@dataclass(frozen=True)
class Removal:
    """`holds` tells of points `(N, 3)` in RAS mm whether they are removed; they get the value `fill`, in physical units."""

    holds: Callable[[np.ndarray], np.ndarray]
    fill: float

    def mask(self, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Which voxels of `shape` `(I, J, K)` are removed, by their centres; `affine` maps indices to RAS mm."""
        found = np.empty(shape, bool)
        rows = np.indices(shape[1:]).reshape(2, -1)
        step = max(1, AT_ONCE // max(rows.shape[1], 1))
        for start in range(0, shape[0], step):
            planes = np.arange(start, min(start + step, shape[0]))
            index = np.concatenate([np.repeat(planes, rows.shape[1])[None], np.tile(rows, len(planes))])
            found[planes] = self.holds(index.T @ affine[:3, :3].T + affine[:3, 3]).reshape(len(planes), *shape[1:])
        return found
