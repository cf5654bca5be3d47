"""Circular cone-beam CT on volumes: projection, exact adjoint, and FDK reconstruction (Feldkamp 1984).

Volumes `(B, D, H, W, C)` are attenuation per mm, projections `(B, views, rows, columns, C)` line integrals. A slice is laid
out as in `medjax.physics.ct`; z grows with the slice index and with the detector's rows.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from medjax.ops import linear
from medjax.physics import fbp
from medjax.physics.ct import Fan, columns_last, ray_sweeps
from medjax.physics.joseph import Sweep
from medjax.physics.rays import Lines, bits_for, centred, fraction, hat, position, take, zeros
from medjax.types import UserError

Volume = Float[Array, "b d h w c"]
Projections = Float[Array, "b v r u c"]

_CHUNK = 2**21  # values that one step of a scan holds, about


@dataclass(frozen=True)
class Cone:
    """Cone beam onto a flat panel from a source that circles at `source_mm` from the axis.

    `shape` and `voxel_mm` are (slice, row, column); `detectors` and `detector_mm` (row, column) of the panel, which
    stands at `detector_distance_mm` from the source; `shift_mm` is the axis' offset along its rows.
    """

    shape: tuple[int, int, int]
    voxel_mm: float | tuple[float, float, float]
    angles: Sequence[float] | np.ndarray
    detectors: tuple[int, int]
    detector_mm: float | tuple[float, float]
    source_mm: float
    detector_distance_mm: float
    shift_mm: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "angles", tuple(float(a) for a in self.angles))
        for name, count in (("voxel_mm", 3), ("detector_mm", 2)):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) * count if isinstance(value, int | float) else tuple(value))
        for name, count in (("shape", 3), ("detectors", 2), ("voxel_mm", 3), ("detector_mm", 2)):
            value = tuple(getattr(self, name))
            object.__setattr__(self, name, value)
            if len(value) != count or min(value) <= 0:
                raise UserError(f"ct.{name}", f"{value}; it must be {count} positive numbers")
        _ = self.plane

    @property
    def plane(self) -> Fan:
        """The fan beam of the middle plane."""
        return Fan(self.shape[1:], self.spacing[1:], self.angles, self.detectors[1], self.pitch_mm[1], self.shift_mm,
                   self.source_mm, self.detector_distance_mm)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Size of a voxel in mm: slice, row, column."""
        size = self.voxel_mm
        return (float(size),) * 3 if isinstance(size, int | float) else (float(size[0]), float(size[1]), float(size[2]))

    @property
    def pitch_mm(self) -> tuple[float, float]:
        """Size of an element of the panel in mm: row, column."""
        size = self.detector_mm
        return (float(size),) * 2 if isinstance(size, int | float) else (float(size[0]), float(size[1]))

    def __call__(self, x: Volume) -> Projections:
        """The line integrals `(B, views, rows, columns, C)` of attenuation `x` per mm."""
        if x.shape[1:4] != self.shape:
            raise UserError("ct.shape", f"volume {x.shape[1:4]} where the geometry has {self.shape}; make them equal")
        return columns_last(functools.partial(linear.apply, _ConeJoseph(self)), x)

    def adjoint(self, y: Projections) -> Volume:
        """The exact transpose (unfiltered back-projection)."""
        self._check(y)
        return columns_last(functools.partial(linear.apply_transpose, _ConeJoseph(self)), y)

    def fbp(self, y: Projections, filter: str = "ramp") -> Volume:
        """FDK reconstruction; filters ramp, shepp-logan, cosine, hann. A short scan gets Parker's weights."""
        self._check(y)
        return columns_last(lambda g: _fdk(self, g, filter), y)

    def init(self, y: Projections) -> Volume:
        """FDK with the plain ramp."""
        return self.fbp(y)

    def _check(self, y: Projections) -> None:
        expected = (len(self.angles), *self.detectors)
        if y.shape[1:4] != expected:
            raise UserError("ct.projections", f"{y.shape[1:4]} where the geometry has {expected} (views, rows, columns)")


@dataclass(frozen=True)
class _ConeJoseph:
    """The projector as a linear map on `(D, H, W, n)` and `(views, rows, columns, n)`."""

    geometry: Cone
    columns = -1

    def forward(self, x: Float[Array, "d h w n"]) -> Float[Array, "v r u n"]:
        stacks = jnp.moveaxis(x, 0, 2)
        out: Any = 0
        for sweep, turn in _cone_sweeps(self.geometry):
            rays = sweep.project(jnp.swapaxes(stacks, 0, 1) if turn else stacks)
            at = np.full(len(self.geometry.angles), len(sweep.plane.views))
            at[sweep.plane.views] = np.arange(len(sweep.plane.views))
            out = out + jnp.pad(rays, ((0, 1), (0, 0), (0, 0), (0, 0)))[at]
        return jnp.swapaxes(out, 1, 2)

    def transpose(self, y: Float[Array, "v r u n"]) -> Float[Array, "d h w n"]:
        rays = jnp.swapaxes(y, 1, 2)
        stacks: Any = 0
        for sweep, turn in _cone_sweeps(self.geometry):
            part = sweep.spread(rays[sweep.plane.views])
            stacks = stacks + (jnp.swapaxes(part, 0, 1) if turn else part)
        return jnp.moveaxis(stacks, 2, 0)


@dataclass(frozen=True)
class _ConeSweep:
    """A sweep of the middle plane with what it takes to leave that plane.

    Where a ray of detector row `r` meets row `i` of a slice's grid, it lies `(2 r - rows + 1) * rise(i)` slices above the
    middle: `rise`, in `bits + extra` fractional bits, is linear in `i`. `slant` is how much longer than in the plane a
    ray is, `(columns, rows)`. A voxel gets its share from `taps` detector rows.
    """

    plane: Sweep
    slices: int
    detector_rows: int
    rise: Lines
    bits: int
    extra: int
    slant: np.ndarray
    taps: int

    def project(self, stacks: Float[Array, "h w d n"]) -> Float[Array, "v u r n"]:
        """Line integrals along the rays."""
        n, detectors = stacks.shape[-1], self.plane.length.shape[1]
        chunk = _even(len(self.plane.views), _CHUNK // (detectors * (self.slices + self.detector_rows) * n))
        wide = jnp.pad(stacks, ((0, 0), (2, 2), (2, 2), (0, 0)))

        def project_views(_: None, tables: tuple[Array, ...]) -> tuple[None, Array]:
            step = functools.partial(self._add_row, tables)
            start = zeros((*tables[0].shape[:2], self.detector_rows, n), stacks)
            return None, lax.scan(step, start, (centred(stacks.shape[0]), wide))[0]

        tables = tuple(jnp.asarray(_in_chunks(t, chunk)) for t in (*_full(self.plane.lines, self.plane.length.shape),
                                                                 *_full(self.rise, self.plane.length.shape)))
        _, rays = lax.scan(project_views, None, tables)
        rays = rays.reshape(-1, *rays.shape[2:])[: len(self.plane.views)]
        return rays * self._lengths(stacks.dtype)

    def _add_row(self, tables: tuple[Array, ...], total: Float[Array, "v u r n"],
                 step: tuple[Array, Array]) -> tuple[Float[Array, "v u r n"], None]:
        i, slab = step
        at = position(tables[:3], i)
        column = jnp.clip((at >> self.plane.lines.bits) + self.plane.shape[1] // 2, -2, self.plane.shape[1]) + 2
        weight = fraction(at, self.plane.lines.bits)[..., None, None]

        # A loop of its own, so that XLA does not compute a profile anew for each row of the panel that looks it up.
        def profile(of_view: tuple[Array, Array]) -> Array:
            column, weight = of_view
            return (1 - weight) * take(slab, column) + weight * take(slab, column + 1)

        profiles = lax.map(profile, (column, weight))
        height = self._height(position(tables[3:], i)[..., None], jnp.arange(self.detector_rows)[None, None])
        index = jnp.clip((height >> self.bits) + self.slices // 2, -2, self.slices) + 2
        index += _offsets(profiles)
        flat = profiles.reshape(-1, profiles.shape[-1])
        weight = fraction(height, self.bits)[..., None]
        return total + (1 - weight) * take(flat, index) + weight * take(flat, index + 1), None

    def spread(self, rays: Float[Array, "v u r n"]) -> Float[Array, "h w d n"]:
        """The transpose of `project`."""
        n, (rows, columns) = rays.shape[-1], self.plane.shape
        detectors = rays.shape[1]
        chunk = _even(rows, _CHUNK // ((columns + detectors) * self.slices * n))
        padded = jnp.pad(rays * self._lengths(rays.dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))
        rise = tuple(np.pad(t, ((0, 0), (1, 1)), mode="edge") for t in _full(self.rise, rays.shape[:2]))

        def spread_to_rows(_: None, i: Int[Array, " k"]) -> tuple[None, Array]:
            step = functools.partial(self._add_view, i[:, None])
            start = zeros((chunk, columns, self.slices, n), rays)
            return None, lax.scan(step, start, (padded, rise, self.plane.footprint.tables))[0]

        i = jnp.arange(-(-rows // chunk) * chunk, dtype=jnp.int32).reshape(-1, chunk) - rows // 2
        _, stacks = lax.scan(spread_to_rows, None, i)
        return stacks.reshape(-1, *stacks.shape[2:])[:rows]

    def _add_view(self, i: Int[Array, "k 1"], total: Float[Array, "k w d n"],
                  step: tuple[Array, tuple[Array, ...], Any]) -> tuple[Float[Array, "k w d n"], None]:
        view, rise, tables = step
        # A loop of its own, so that XLA does not compute a profile anew for each pixel that looks it up.
        profiles = lax.map(functools.partial(self._profiles, view), position(tuple(t[None] for t in rise), i))
        flat = profiles.reshape(-1, *profiles.shape[2:])
        base = jnp.arange(i.shape[0])[:, None] * profiles.shape[1]
        for detector, weight in self.plane.footprint.meet(tables, i, centred(self.plane.shape[1])[None]):
            total = total + weight[..., None, None] * take(flat, base + detector)
        return total, None

    def _profiles(self, view: Float[Array, "u2 r2 n"], rise: Int[Array, " u2"]) -> Float[Array, "u2 d n"]:
        """What the rays of one view bring to a row of the grid, over slices: `(columns of the panel, slices, n)`."""
        z = centred(self.slices)[None]
        per_row = rise[:, None].astype(jnp.float32) * 2.0 ** (1 - self.bits - self.extra)
        middle, odd = (self.detector_rows - 1) / 2, self.slices % 2
        first = jnp.floor((z - 1 + (1 - odd) / 2) / per_row + middle - _SLACK).astype(jnp.int32) + 1
        flat = view.reshape(-1, view.shape[-1])
        base = jnp.arange(view.shape[0])[:, None] * view.shape[1]
        total: Any = 0
        for tap in range(self.taps):
            row = jnp.clip(first + tap, -1, self.detector_rows)
            distance = self._height(rise[:, None], row) - (z << self.bits)
            total = total + hat(distance, self.bits)[..., None] * take(flat, base + row + 1)
        return total

    def _height(self, rise: Int[Array, "..."], row: Int[Array, "..."]) -> Int[Array, "..."]:
        """The slice, counted from the middle one, where a ray is: fixed point with `bits`."""
        steps = 2 * row.astype(jnp.int32) - (self.detector_rows - 1)
        fine = (steps * (rise & (2**self.extra - 1))) >> self.extra
        half = 0 if self.slices % 2 else 2 ** (self.bits - 1)
        return steps * (rise >> self.extra) + fine - half

    def _lengths(self, dtype: np.dtype) -> Float[Array, "v u r 1"]:
        return jnp.asarray(self.plane.length[:, :, None, None] * self.slant[None, :, :, None], dtype)


_SLACK = 0.01  # detector rows; float32 finds the row to a hundredth of that


@functools.lru_cache(maxsize=8)
def _cone_sweeps(geometry: Cone) -> list[tuple[_ConeSweep, bool]]:
    return [(_lift(geometry, sweep, turn), turn)
            for sweep, turn in zip(ray_sweeps(geometry.plane), (False, True), strict=True) if sweep is not None]


def _lift(geometry: Cone, sweep: Sweep, turn: bool) -> _ConeSweep:
    """A sweep of the middle plane made one of the cone: the rays' rise is the panel's row height, shrunk to the plane."""
    distances = np.stack([_distance(geometry, sweep, turn, i) for i in (0, 1)])
    per_row = geometry.pitch_mm[0] / (2 * geometry.spacing[0] * geometry.detector_distance_mm)
    start, slope = distances[0] * per_row, (distances[1] - distances[0]) * per_row
    mine = sweep.length > 0
    start, slope = np.where(mine, start, start[mine].mean()), np.where(mine, slope, 0)
    reach = sweep.shape[0] / 2 + 1
    steepest, flattest = (start + np.abs(slope) * reach).max(), (start - np.abs(slope) * reach).min()
    rows = geometry.detectors[0]
    bits, extra = bits_for(rows * steepest + 2), int(np.floor(np.log2(rows)))
    u = geometry.plane.positions_mm
    v = (np.arange(rows) - (rows - 1) / 2) * geometry.pitch_mm[0]
    slant = np.sqrt(1 + v[None] ** 2 / (geometry.detector_distance_mm**2 + u[:, None] ** 2))
    return _ConeSweep(sweep, geometry.shape[0], rows, Lines.of(start, slope, bits + extra), bits, extra, slant,
                      int(np.ceil(1 / flattest + 2 * _SLACK)))


def _distance(geometry: Cone, sweep: Sweep, turn: bool, i: int) -> Float[np.ndarray, "v u"]:
    """How far along the central ray the rays have come at row `i` of a sweep, in mm, `(views, columns)`."""
    plane = geometry.plane
    points, directions = (v[:, sweep.views] for v in plane.rays())
    axis, size = (0, plane.shape[1]) if turn else (1, plane.shape[0])
    offset = i + size // 2 - (size - 1) / 2
    place = offset * plane.spacing[1] if turn else -offset * plane.spacing[0]
    along = np.where(sweep.length > 0, directions[axis], 1)
    x, y = points + (place - points[axis]) / along * directions
    c, s = (f(np.asarray(plane.angles))[sweep.views, None] for f in (np.cos, np.sin))
    return plane.source_mm - x * s + y * c


def _fdk(geometry: Cone, projections: Float[Array, "v r u n"], filter: str) -> Float[Array, "d h w n"]:
    """Weighted, filtered along the panel's rows and back-projected."""
    plane = geometry.plane
    fbp.check_detector(plane)
    v = (np.arange(geometry.detectors[0]) - (geometry.detectors[0] - 1) / 2) * geometry.pitch_mm[0]
    tilt = geometry.detector_distance_mm / np.sqrt(
        geometry.detector_distance_mm**2 + plane.positions_mm[None] ** 2 + v[:, None] ** 2)
    weights = (fbp.view_weights(plane)[:, None] * fbp.redundancy(plane))[:, None] * tilt[None]
    weighted = projections * jnp.asarray(weights, jnp.float32)[..., None]
    filtered = jnp.einsum("ed,vrdn->vern", fbp.toeplitz(plane, filter), weighted, precision="highest")
    return _back_project(geometry, filtered)


def _back_project(geometry: Cone, filtered: Float[Array, "v u r n"]) -> Float[Array, "d h w n"]:
    """Every view looked up at each voxel's place on the panel: first along its columns, then along its rows."""
    slices, rows, columns = geometry.shape
    dz, dy, dx = geometry.spacing
    panel_rows, panel_columns = geometry.detectors
    n = filtered.shape[-1]
    chunk = _even(rows, _CHUNK // (columns * (slices + panel_rows) * n))
    x = (jnp.arange(columns) - (columns - 1) / 2)[None, :] * dx
    z = (jnp.arange(slices) - (slices - 1) / 2)[None, None, :] * dz

    def add_view(y: Array, total: Array, step: tuple[Array, Array, Array]) -> tuple[Array, None]:
        view, c, s = step
        index, weight = _neighbours(geometry.plane.detector(c, s, x, y), panel_columns)

        # As in `_ConeSweep`, a loop of its own.
        def stack(of_row: tuple[Array, Array]) -> Array:
            index, weight = of_row
            return (1 - weight) * take(view, index) + weight * take(view, index + 1)

        stacks = lax.map(stack, (index, weight[..., None]))
        scale = geometry.plane.magnification(c, s, x, y)[..., None]
        height = z * scale * (geometry.detector_distance_mm / geometry.source_mm / geometry.pitch_mm[0])
        index, weight = _neighbours(height + (panel_rows - 1) / 2, panel_rows)
        index += _offsets(stacks)
        flat = stacks.reshape(-1, n)
        seen = (1 - weight) * take(flat, index) + weight * take(flat, index + 1)
        return total + seen * jnp.square(scale)[..., None], None

    def image_rows(_: None, y: Float[Array, " k"]) -> tuple[None, Array]:
        start = zeros((chunk, columns, slices, n), filtered)
        return None, lax.scan(functools.partial(add_view, y[:, None]), start, (wide, c, s))[0]

    wide = jnp.pad(filtered, ((0, 0), (1, 1), (1, 1), (0, 0)))
    c, s = (jnp.asarray(f(geometry.angles), jnp.float32) for f in (np.cos, np.sin))
    y = ((rows - 1) / 2 - jnp.arange(-(-rows // chunk) * chunk)).reshape(-1, chunk) * dy
    _, stacks = lax.scan(image_rows, None, y)
    return jnp.moveaxis(stacks.reshape(-1, *stacks.shape[2:])[:rows], 2, 0)


def _neighbours(at: Float[Array, "*s"], count: int) -> tuple[Int[Array, "*s"], Float[Array, "*s 1"]]:
    """The lower neighbour on an axis of `count`, padded by one on either side, and the upper one's weight."""
    at = jnp.clip(at, -1, count)
    index = jnp.clip(jnp.floor(at).astype(jnp.int32), -1, count - 1)
    return index + 1, (at - index)[..., None]


def _offsets(profiles: Float[Array, "a b k n"]) -> Int[Array, "a b 1"]:
    """Where each profile of `(a, b, k, n)` starts in the flat table `(a b k, n)`, `(a, b, 1)`."""
    a, b, k, _ = profiles.shape
    return (jnp.arange(a * b, dtype=jnp.int32) * k).reshape(a, b, 1)


def _full(lines: Lines, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    return tuple(np.broadcast_to(t, shape) for t in lines.tables)


def _even(count: int, most: int) -> int:
    """The size of equal chunks of `count`, at most `most`, so that little is filled up in the last one."""
    return -(-count // -(-count // max(1, most)))


def _in_chunks(table: Int[np.ndarray, "v u"], chunk: int) -> Int[np.ndarray, "chunks chunk u"]:
    """Rows in groups of `chunk`, the last group filled up."""
    padded = np.pad(table, ((0, -len(table) % chunk), (0, 0)), mode="edge")
    return padded.reshape(-1, chunk, table.shape[1])
