"""Registration of a template to a scan of any contrast, with scales, by mutual information, from several starts (ITK)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import SimpleITK
from scipy import ndimage

from medjax.classical.rigid import coarse, world

BINS = 32
LEVELS = ((4.0, 13000, 4.0), (1.5, 40000, 1.5))  # blur in mm, points drawn, first step in mm: coarse, then fine
Motion: TypeAlias = SimpleITK.Similarity3DTransform | SimpleITK.ScaleVersor3DTransform
MOTIONS: tuple[type[Motion], ...] = (SimpleITK.Similarity3DTransform, SimpleITK.ScaleVersor3DTransform)  # of the levels
TRIED = 6000  # points that the starts are compared by
STEPS = 60
LAST_MM = 0.02  # the step that ends a level
BEST = 4  # starts that are followed


@dataclass(frozen=True)
class Grid:
    """Values `(X, Y, Z)` along RAS axes, and where they count: in steps of `step_mm`, the first voxel at `corner_mm`."""

    values: np.ndarray
    inside: np.ndarray
    corner_mm: np.ndarray
    step_mm: float

    @classmethod
    def of(cls, volume: np.ndarray, affine: np.ndarray, step_mm: float, low: np.ndarray, high: np.ndarray) -> "Grid":
        """A volume with any affine, sheared ones too, between two points in RAS mm: means over blocks, interpolated."""
        shape = tuple(np.maximum(np.ceil((high - low) / step_mm).astype(int), 2).tolist())
        blocks, place = coarse(volume, affine, step_mm)
        index = np.linalg.inv(place) @ _affine(low + step_mm / 2, step_mm)
        where = (index[:3, :3], index[:3, 3], shape)
        values = ndimage.affine_transform(blocks.astype(np.float32), *where, order=1, mode="nearest")
        inside = ndimage.affine_transform(np.ones(blocks.shape, np.float32), *where, order=1) > 0.5
        return cls(values, inside, low + step_mm / 2, step_mm)

    @property
    def affine(self) -> np.ndarray:
        """`(4, 4)`: indices to RAS mm."""
        return _affine(self.corner_mm, self.step_mm)


@dataclass(frozen=True)
class Fit:
    """`matrix` `(4, 4)` maps RAS mm of the template to those of the scan; their mutual information there, in nats."""

    matrix: np.ndarray
    information: float


def affine(template: Grid, scan: Grid, starts: Sequence[np.ndarray], seed: int = 1) -> Fit | None:
    """The map of most mutual information (Mattes et al., IEEE TMI 22, 2003), from the best of `starts` `(4, 4)`.

    A rotation, a shift and a scale along each axis of the template come to the start: shear is not fitted, which few thick
    slices leave open. `seed` chooses the points that are compared: fits by several seeds agree where the fit is good. None
    where the two hardly overlap from any start. Both grids have four voxels or more along each axis.
    """
    pair = _Pair(template, scan, seed)
    tried = _best([pair.at(start) for start in starts])[:BEST]
    for level in range(len(LEVELS)):
        tried = _best([pair.followed(fit.matrix, level) for fit in tried])[:1]
    return tried[0] if tried else None


class _Pair:
    """Two grids as ITK's images, blurred for each level. Coordinates are RAS mm, which ITK takes as they are."""

    def __init__(self, template: Grid, scan: Grid, seed: int):
        self._seed = seed
        self._middle = world(template.affine, (np.array(template.values.shape) - 1) / 2)
        self._voxels = template.values.size
        self._masks = [_image(grid.inside.astype(np.uint8), grid) for grid in (template, scan)]
        images = [_image(grid.values.astype(np.float32), grid) for grid in (template, scan)]
        self._levels = [[SimpleITK.SmoothingRecursiveGaussian(image, blur) for image in images] for blur, _, _ in LEVELS]

    def at(self, matrix: np.ndarray) -> Fit | None:
        """The information without a step."""
        method, _ = self._method(matrix, SimpleITK.Similarity3DTransform(), TRIED, 1.0)
        try:
            return Fit(matrix, -method.MetricEvaluate(*self._levels[0]))
        except RuntimeError:  # ITK's, where too few points lie inside both
            return None

    def followed(self, matrix: np.ndarray, level: int) -> Fit | None:
        """The nearest maximum."""
        _, points, step = LEVELS[level]
        method, motion = self._method(matrix, MOTIONS[level](), points, step)
        try:
            method.Execute(*self._levels[level])
        except RuntimeError:
            return None
        moved = np.eye(4)
        moved[:3, :3] = np.reshape(motion.GetMatrix(), (3, 3))
        moved[:3, 3] = self._middle + motion.GetTranslation() - moved[:3, :3] @ self._middle
        return Fit(matrix @ moved, -method.GetMetricValue())

    def _method(self, matrix: np.ndarray, motion: Motion, points: int,
                step: float) -> tuple[SimpleITK.ImageRegistrationMethod, Motion]:
        """`motion`, about the template's middle and before `matrix`, is what the method optimises."""
        middle = self._middle.tolist()
        motion.SetCenter(middle)
        shift = world(matrix, self._middle) - self._middle
        method = SimpleITK.ImageRegistrationMethod()
        method.SetNumberOfThreads(1)  # sums of several are not repeated to the bit
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricFixedMask(self._masks[0])
        method.SetMetricMovingMask(self._masks[1])
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(min(1.0, points / self._voxels), seed=self._seed)
        method.SetInterpolator(SimpleITK.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(step, LAST_MM, STEPS, relaxationFactor=0.6)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetMovingInitialTransform(SimpleITK.AffineTransform(matrix[:3, :3].ravel().tolist(), shift.tolist(), middle))
        method.SetInitialTransform(motion, inPlace=True)
        return method, motion


def _best(found: Sequence[Fit | None]) -> list[Fit]:
    return sorted((fit for fit in found if fit is not None), key=lambda fit: -fit.information)


def _affine(corner_mm: np.ndarray, step_mm: float) -> np.ndarray:
    matrix = np.diag([step_mm] * 3 + [1.0])
    matrix[:3, 3] = corner_mm
    return matrix


def _image(values: np.ndarray, grid: Grid) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing([grid.step_mm] * 3)
    image.SetOrigin(grid.corner_mm.tolist())
    return image
