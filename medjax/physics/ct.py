"""CT in 2-D: parallel and fan beams, their adjoint and filtered back-projection.

Images `(B, H, W, C)` are attenuation per mm, sinograms `(B, views, detectors, C)` line integrals without unit. The axes of
the world have their origin in the middle of the image: x to the right along columns, y up against rows. At angle 0 the
rays run up, and the detector's elements count along x; positive angles turn source and detector counter-clockwise.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int

from medjax.ops import linear
from medjax.physics import fbp
from medjax.physics.footprint import Affine, Footprint, Projective
from medjax.physics.joseph import Sweep, lines_across
from medjax.physics.rays import Lines, Values
from medjax.types import UserError

Image: TypeAlias = Float[Array, "b h w c"]
Sinogram: TypeAlias = Float[Array, "b v d c"]


def angles(views: int, span: float = 180.0, start: float = 0.0) -> tuple[float, ...]:
    """The angles of `views` equal steps over `span` degrees, from `start`, in radians.

    A scan that measures every line is complete: from `geometry.complete_span` on, 180 for parallel beams, more for fans.
    """
    return tuple(np.deg2rad(start + span * np.arange(views) / views).tolist())


@dataclass(frozen=True)
class Planar:
    """What parallel and fan beams share. `pixel_mm` is one size or (row, column); `shift_mm` the axis' offset on the
    detector, in whose units `detector_mm` is too."""

    shape: tuple[int, int]
    pixel_mm: float | tuple[float, float]
    angles: Sequence[float] | np.ndarray
    detectors: int
    detector_mm: float
    shift_mm: float = 0.0

    lengths: ClassVar[tuple[str, ...]] = ("detector_mm", "shift_mm")

    def __post_init__(self) -> None:
        object.__setattr__(self, "angles", tuple(float(a) for a in self.angles))
        object.__setattr__(self, "shape", tuple(self.shape))
        if not self.angles:
            raise UserError("ct.angles", "there are none; give at least one")
        if len(self.shape) != 2 or min(*self.shape, self.detectors) < 1:
            raise UserError("ct.shape", f"image {self.shape} with {self.detectors} detectors; sizes are positive, 2-D")
        if min(*self.spacing, self.detector_mm) <= 0:
            raise UserError("ct.pixel_mm", "pixels and detectors have positive sizes in mm")

    @property
    def spacing(self) -> tuple[float, float]:
        """Size of a pixel in mm along rows and columns of the array."""
        row, column = (self.pixel_mm,) * 2 if isinstance(self.pixel_mm, int | float) else self.pixel_mm
        return row, column

    def in_pixels(self) -> "Planar":
        """The same scan with the pixel (the mean of its two sizes) as the unit of length."""
        unit = sum(self.spacing) / 2
        lengths = {name: getattr(self, name) / unit for name in self.lengths}
        return replace(self, pixel_mm=(self.spacing[0] / unit, self.spacing[1] / unit), **lengths)

    def oversampled(self, factor: int) -> "Planar":
        """The same scan with pixels and detector elements `factor` times smaller, and as many times more of them."""
        return replace(self, shape=(self.shape[0] * factor, self.shape[1] * factor), detectors=self.detectors * factor,
                       pixel_mm=(self.spacing[0] / factor, self.spacing[1] / factor), detector_mm=self.detector_mm / factor)

    def __call__(self, x: Image) -> Sinogram:
        """The line integrals `(B, views, detectors, C)` of attenuation `x` per mm."""
        if x.shape[1:3] != self.shape:
            raise UserError("ct.shape", f"image {x.shape[1:3]} where the geometry has {self.shape}; make them equal")
        return columns_last(functools.partial(linear.apply, _Joseph(self)), x)

    def adjoint(self, y: Sinogram) -> Image:
        """The exact transpose (unfiltered back-projection)."""
        self._check(y)
        return columns_last(functools.partial(linear.apply_transpose, _Joseph(self)), y)

    def fbp(self, y: Sinogram, filter: str = "ramp") -> Image:
        """Filtered back-projection; filters ramp, shepp-logan, cosine, hann."""
        self._check(y)
        return columns_last(lambda g: fbp.planar(self, g, filter), y)

    def init(self, y: Sinogram) -> Image:
        """Filtered back-projection with the plain ramp."""
        return self.fbp(y)

    def _check(self, y: Sinogram) -> None:
        if y.shape[1:3] != (len(self.angles), self.detectors):
            expected = (len(self.angles), self.detectors)
            raise UserError("ct.sinogram", f"{y.shape[1:3]} where the geometry has {expected} (views, detectors)")

    @property
    def positions_mm(self) -> np.ndarray:
        """The detectors' centres along the detector, in mm from where the central ray meets it."""
        return (np.arange(self.detectors) - (self.detectors - 1) / 2) * self.detector_mm + self.shift_mm

    @property
    def radius_mm(self) -> float:
        """Of the circle around the image."""
        return float(np.linalg.norm(np.multiply(self.shape, self.spacing)) / 2)


@dataclass(frozen=True)
class Parallel(Planar):
    """Parallel beam."""

    period = np.pi

    @property
    def complete_span(self) -> float:
        """The shortest span, in degrees, whose rays cover every line through the image: 180."""
        return 180.0

    @property
    def distances_mm(self) -> np.ndarray:
        """How far from the axis the rays pass, in mm, negative on the other side, `(detectors,)`."""
        return self.positions_mm

    @property
    def pitch_mm(self) -> float:
        """The detectors' spacing, seen at the axis."""
        return self.detector_mm

    @property
    def fan_angles(self) -> np.ndarray:
        """The rays' angles to the central one: 0."""
        return np.zeros(self.detectors)

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """A point on each ray and its direction, (x, y) in mm, `(2, views, detectors or 1)`."""
        c, s = _cos_sin(self.angles)
        u = self.positions_mm[None]
        return np.stack([u * c, u * s]), np.stack([-s, c])

    def detector(self, c: Values, s: Values, x: Values, y: Values) -> Values:
        """The detector index, not rounded, of the ray through `(x, y)` mm at the angle with cosine `c` and sine `s`."""
        return (x * c + y * s - self.shift_mm) / self.detector_mm + (self.detectors - 1) / 2

    def magnification(self, c: Values, s: Values, x: Values, y: Values) -> float:
        """How much larger than at the axis a point's image on the detector is: 1."""
        return 1.0


@dataclass(frozen=True)
class Fan(Planar):
    """Fan beam from a source that circles at `source_mm` from the axis, `detector_distance_mm` from the detector.

    The detector is flat, or with `curved=True` an arc around the source with `detector_mm` along the arc.
    """

    source_mm: float = 0.0
    detector_distance_mm: float = 0.0
    curved: bool = False
    lengths = (*Planar.lengths, "source_mm", "detector_distance_mm")
    period = 2 * np.pi

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.radius_mm < self.source_mm <= self.detector_distance_mm:
            raise UserError("ct.source_mm", f"source {self.source_mm:g} mm from the axis, {self.detector_distance_mm:g} mm "
                            f"from the detector; it must lie outside the image ({self.radius_mm:.0f} mm) and before the "
                            "detector")

    @property
    def complete_span(self) -> float:
        """The shortest span, in degrees, whose rays cover every line through the image: 180 and the fan angle (Parker 1982).

        Where the detector is wider than the image, the fan is that of the circle around the image.
        """
        reach = min(np.abs(self.distances_mm).max(), self.radius_mm)
        return float(180 + 2 * np.rad2deg(np.arcsin(reach / self.source_mm)))

    @property
    def distances_mm(self) -> np.ndarray:
        """How far from the axis the rays pass, in mm, negative on the other side, `(detectors,)`."""
        return self.source_mm * np.sin(self.fan_angles)

    @property
    def pitch_mm(self) -> float:
        """The detectors' spacing, seen at the axis."""
        return self.detector_mm * self.source_mm / self.detector_distance_mm

    @property
    def fan_angles(self) -> np.ndarray:
        """The rays' angles to the central one, in radians, positive towards positive detector positions."""
        gamma = self.positions_mm / self.detector_distance_mm
        return gamma if self.curved else np.arctan(gamma)

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """A point on each ray and its direction, (x, y) in mm, `(2, views, detectors or 1)`."""
        c, s = _cos_sin(self.angles)
        gamma = self.fan_angles[None]
        source = np.stack([self.source_mm * s, -self.source_mm * c])
        direction = np.stack([np.sin(gamma) * c - np.cos(gamma) * s, np.sin(gamma) * s + np.cos(gamma) * c])
        # The point nearest to the axis, so that float64 tables keep their digits.
        along = -(source * direction).sum(0)
        return source + along * direction, direction

    def detector(self, c: Values, s: Values, x: Values, y: Values) -> Values:
        """The detector index, not rounded, of the ray through `(x, y)` mm at the angle with cosine `c` and sine `s`."""
        xp = np if isinstance(x, np.ndarray) else jnp
        across, along = x * c + y * s, self.source_mm - x * s + y * c
        u = xp.arctan2(across, along) if self.curved else across / along
        return (u * self.detector_distance_mm - self.shift_mm) / self.detector_mm + (self.detectors - 1) / 2

    def magnification(self, c: Values, s: Values, x: Values, y: Values) -> Values:
        """How much larger than at the axis a point's image on the detector is."""
        if self.curved:
            return self.source_mm / ((x * c + y * s) ** 2 + (self.source_mm - x * s + y * c) ** 2) ** 0.5
        return self.source_mm / (self.source_mm - x * s + y * c)


@dataclass(frozen=True)
class _Joseph:
    """The projector of a geometry as a linear map on `(H, W, n)` and `(views, detectors, n)`."""

    geometry: Planar
    columns = -1

    def forward(self, x: Float[Array, "h w n"]) -> Float[Array, "v d n"]:
        sinogram: Any = 0
        for sweep, turn in zip(ray_sweeps(self.geometry), (False, True), strict=True):
            if sweep is not None:
                rays = sweep.project(jnp.swapaxes(x, 0, 1) if turn else x)
                sinogram = sinogram + _place(rays, sweep.views, len(self.geometry.angles))
        return sinogram

    def transpose(self, y: Float[Array, "v d n"]) -> Float[Array, "h w n"]:
        image: Any = 0
        for sweep, turn in zip(ray_sweeps(self.geometry), (False, True), strict=True):
            if sweep is not None:
                part = sweep.spread(y[sweep.views])
                image = image + (jnp.swapaxes(part, 0, 1) if turn else part)
        return image


def columns_last(fn: Callable[[Array], Array], v: Inexact[Array, "b *s c"]) -> Inexact[Array, "b *t c"]:
    """Applies a function on `(*s, columns)` to `(B, *s, C)`."""
    batch, channels = v.shape[0], v.shape[-1]
    columns = jnp.moveaxis(v, 0, -2).reshape(*v.shape[1:-1], batch * channels)
    out = fn(columns.astype(jnp.promote_types(v.dtype, jnp.float32)))
    return jnp.moveaxis(out.reshape(*out.shape[:-1], batch, channels), -2, 0)


def _place(rays: Float[Array, "v d n"], views: Int[np.ndarray, " v"], count: int) -> Float[Array, "count d n"]:
    """The views of one sweep among all `count`, zeros for the others."""
    at = np.full(count, len(views))
    at[views] = np.arange(len(views))
    return jnp.pad(rays, ((0, 1), (0, 0), (0, 0)))[at]


@functools.lru_cache(maxsize=16)
def ray_sweeps(geometry: Parallel | Fan) -> tuple[Sweep | None, Sweep | None]:
    """The rays that run mostly along y, and those that run mostly along x on the transposed image."""
    return _sweep(geometry, turn=False), _sweep(geometry, turn=True)


def _sweep(geometry: Parallel | Fan, turn: bool) -> Sweep | None:
    points, directions = (np.stack([-v[1], v[0]]) for v in geometry.rays())
    shape, spacing = geometry.shape, geometry.spacing
    if turn:
        points, directions, shape, spacing = points[::-1], directions[::-1], shape[::-1], spacing[::-1]
    lines, length, mine = lines_across(points, directions, shape, spacing)
    if turn:  # rays at exactly 45 degrees belong to the other sweep
        other = lines_across(points[::-1], directions[::-1], shape[::-1], spacing[::-1])[2]
        mine, length = mine & ~other, np.where(other, 0, length)
    views = np.flatnonzero(mine.any(1))
    if not len(views):
        return None
    start, slope, rest = (np.ascontiguousarray(t[views]) for t in lines.tables)
    lines = Lines(start, slope, rest, lines.bits)
    c, s = np.cos(geometry.angles)[views], np.sin(geometry.angles)[views]
    index = functools.partial(_index, geometry, turn)
    footprint: Footprint
    if isinstance(geometry, Parallel):
        by_angle = functools.partial(index, c[:, None, None], s[:, None, None])
        footprint = Affine.of(by_angle, shape, geometry.detectors)
    else:
        footprint = Projective.of(lines, index, c, s, shape, geometry.detectors)
    return Sweep(shape, views, lines, length[views].astype(np.float32), footprint)


def _cos_sin(angles: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.cos(angles)[:, None], np.sin(angles)[:, None]


def _index(geometry: Parallel | Fan, turn: bool, c: Values, s: Values, i: Values, j: Values) -> Values:
    """The detector index at row `i` and column `j` of a sweep, counted from the middle ones."""
    row, column = (j, i) if turn else (i, j)
    (rows, columns), (dy, dx) = geometry.shape, geometry.spacing
    x, y = (column + columns // 2 - (columns - 1) / 2) * dx, -(row + rows // 2 - (rows - 1) / 2) * dy
    return geometry.detector(c, s, x, y)
