"""Line integrals through a 2-D image by linear interpolation (Joseph 1982), and their exact transpose, as gathers.

Both walk along scan-friendly axes: the projection adds one image row to all rays per step, the transpose one view to all
pixels. Trailing columns (batch, channels, slices) lie contiguous, so a table look-up serves all of them.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from medjax.physics.footprint import Footprint
from medjax.physics.rays import Lines, bits_for, centred, fraction, position, take, zeros


@dataclass(frozen=True)
class Sweep:
    """The rays that run mostly across the rows of an image of `shape`, of the `views` that have such.

    `lines` gives a ray's column (from the middle one, `shape[1] // 2`) at a row (from `shape[0] // 2`), `length` the
    path per row in mm, 0 for rays of the other sweep. `footprint` tells which rays a pixel meets.
    """

    shape: tuple[int, int]
    views: np.ndarray
    lines: Lines
    length: np.ndarray
    footprint: Footprint

    def project(self, image: Float[Array, "h w n"]) -> Float[Array, "v d n"]:
        """Line integrals along the rays, 0 for those of the other sweep."""
        rows, columns = self.shape
        middle, bits = columns // 2, self.lines.bits
        tables = tuple(jnp.asarray(t) for t in self.lines.tables)

        def add_row(total: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
            i, row = step
            at = position(tables, i)
            column = jnp.clip((at >> bits) + middle, -2, columns) + 2
            weight = fraction(at, bits)[..., None]
            return total + (1 - weight) * take(row, column) + weight * take(row, column + 1), None

        wide = jnp.pad(image, ((0, 0), (2, 2), (0, 0)))
        start = zeros((*self.length.shape, image.shape[-1]), image)
        total, _ = lax.scan(add_row, start, (centred(rows), wide))
        return total * jnp.asarray(self.length)[..., None].astype(image.dtype)

    def spread(self, rays: Float[Array, "v d n"]) -> Float[Array, "h w n"]:
        """The transpose of `project`."""
        rows, columns = self.shape
        i, j = centred(rows)[:, None], centred(columns)[None, :]

        def add_view(total: Array, step: tuple[Array, Any]) -> tuple[Array, None]:
            view, tables = step
            for detector, weight in self.footprint.meet(tables, i, j):
                total = total + weight[..., None] * take(view, detector)
            return total, None

        weighted = rays * jnp.asarray(self.length)[..., None].astype(rays.dtype)
        padded = jnp.pad(weighted, ((0, 0), (1, 1), (0, 0)))
        start = zeros((rows, columns, rays.shape[-1]), rays)
        return lax.scan(add_view, start, (padded, self.footprint.tables))[0]


def lines_across(points: np.ndarray, directions: np.ndarray, shape: tuple[int, int],
                 spacing: tuple[float, float]) -> tuple[Lines, np.ndarray, np.ndarray]:
    """Lines, path lengths and the rays' membership for the sweep over rows.

    `points` and `directions` are `(2, views, detectors or 1)`: (row, column) coordinates in mm from the image's middle,
    growing with the index. A ray belongs to the sweep if it crosses rows at least as fast as columns.
    """
    rows, columns = shape
    down, right = directions[0] / spacing[0], directions[1] / spacing[1]
    mine = np.abs(down) >= np.abs(right)
    slope = np.where(mine, right, 0) / np.where(mine, down, 1)
    row, column = points[0] / spacing[0] + (rows - 1) / 2, points[1] / spacing[1] + (columns - 1) / 2
    start = column - columns // 2 + (rows // 2 - row) * slope
    outside = (rows + columns) / 2 + 3
    lines = Lines.of(np.clip(start, -outside, outside), slope, bits_for(outside + rows / 2 + 1))
    length = np.where(mine, np.hypot(spacing[0], spacing[1] * slope), 0)
    return lines, np.broadcast_to(length, start.shape), np.broadcast_to(mine, start.shape)
