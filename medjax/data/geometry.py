"""One orientation inside, the file's own outside.

Inside medjax a volume is `image[z, y, x, c]` with z towards Superior, y towards Anterior and x towards Right, as near
as whole axes allow (closest canonical RAS, axes reversed): an axial slice is `image[z]`. The affine of a record maps
`(z, y, x)` voxel indices to RAS mm, so what is left of an oblique acquisition stays in it, and nothing is resampled.
"""

from dataclasses import dataclass

import numpy as np
from nibabel import orientations

from medjax.types import UserError

TO_RAS = np.array([-1.0, -1.0, 1.0])  # DICOM and ITK count to the left and to the back; this way, and back
SINGULAR = 1e-6  # volume of the box that axes of length 1 span, below which they don't span space

@dataclass(frozen=True)
class Orientation:
    """The whole-axis turn from a file's `(i, j, k)` to `(z, y, x)`, and back."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def of(cls, affine: np.ndarray, where: object = "affine") -> "Orientation":
        """The turn that brings a volume with this `(4, 4)` affine (file's indices to RAS mm) nearest to (z, y, x).

        Raises UserError, naming `where`, for an affine whose axes don't span space.
        """
        if not spans_space(affine):
            raise UserError(where, f"its affine {np.round(affine[:3], 3).tolist()} has axes that don't span space; give "
                            "voxel sizes and directions")
        turn = orientations.io_orientation(affine)
        z, y, x = (int(axis) for axis in np.argsort(turn[:, 0])[::-1])
        return cls((z, y, x), (bool(turn[z, 1] < 0), bool(turn[y, 1] < 0), bool(turn[x, 1] < 0)))

    def inside(self, volume: np.ndarray) -> np.ndarray:
        """`(I, J, K, ...)` as a view `(D, H, W, ...)`."""
        return np.flip(volume.transpose(*self.axes, *range(3, volume.ndim)), self._flipped)

    def outside(self, volume: np.ndarray) -> np.ndarray:
        """`(D, H, W, ...)` as a view `(I, J, K, ...)`: the inverse of `inside`."""
        return np.flip(volume, self._flipped).transpose(*np.argsort(self.axes), *range(3, volume.ndim))

    def affine(self, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The `(4, 4)` affine of `(z, y, x)` for a volume of `shape` `(I, J, K)` with `affine` in the file."""
        index = np.zeros((4, 4))
        index[3, 3] = 1
        for inner, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            index[axis, inner] = -1 if flip else 1
            index[axis, 3] = shape[axis] - 1 if flip else 0
        return affine @ index

    @property
    def _flipped(self) -> tuple[int, ...]:
        return tuple(i for i, flip in enumerate(self.flips) if flip)


def spans_space(affine: np.ndarray) -> bool:
    """Whether the numbers of a `(4, 4)` affine are finite and its axes independent of each other."""
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if not np.isfinite(affine).all() or not np.isfinite(lengths).all() or lengths.min() <= 0:
            return False
        return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) > SINGULAR)


def spacing(affine: np.ndarray) -> tuple[float, ...]:
    """Voxel size in mm along each array axis of an `(n+1, n+1)` affine."""
    return tuple(float(v) for v in np.linalg.norm(affine[:3, :-1], axis=0))


def resized(affine: np.ndarray, shape: tuple[int, ...], new_shape: tuple[int, ...]) -> np.ndarray:
    """The affine of the same field of view cut into `new_shape` voxels instead of `shape`."""
    scale = np.asarray(shape, float) / np.asarray(new_shape, float)
    index = np.diag([*scale, 1.0])
    index[:3, 3] = (scale - 1) / 2
    return affine @ index
