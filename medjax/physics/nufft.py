"""Non-Cartesian MRI: Fourier transforms at any points of k-space, on a finer grid with a Kaiser-Bessel kernel.

Beatty, Nishimura and Pauly 2005. A trajectory `(samples, ndim)` counts cycles per field of view, `-n / 2 … n / 2`.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float, Inexact, Int

from medjax.ops import linear
from medjax.ops.fft import fft, ifft
from medjax.physics.rays import take, zeros
from medjax.types import UserError, pytree, static

_TILE = 8  # grid cells; samples are gridded tile by tile, as small matrix products
_CHUNK = 2**21  # values that one step of a scan holds, about


@pytree
class Plan:
    """A trajectory made ready for images of `shape`; make it with `plan`.

    `first` `(m, ndim)` is the first grid cell that a sample meets and `weights` `(m, ndim, width)` the kernel from there
    on; `deapodise` has a vector per axis; `density` `(m,)` the area of k-space for which a sample stands. `tiles` and
    `members` name, for tiles with about as many samples, the tile and its samples (`m` where there are fewer).
    """

    first: Array
    weights: Array
    deapodise: tuple[Array, ...]
    density: Array
    tiles: tuple[Array, ...]
    members: tuple[Array, ...]
    shape: tuple[int, ...] = static()
    grid: tuple[int, ...] = static()


@pytree
class NonCartesian:
    """`NUFFT(maps * x)`: SENSE encoding along a trajectory. Images `(B, *space, 1)`, k-space `(B, coils, samples)`.

    `maps` is `(B or 1, coils, *space)`, `plan` the trajectory's.
    """

    maps: Complex[Array, "#b coils *space"]
    plan: Plan

    def __call__(self, x: Complex[Array, "b *space 1"]) -> Complex[Array, "b coils m"]:
        """The k-space samples."""
        return nufft(self.maps * jnp.moveaxis(x, -1, 1), self.plan)

    def adjoint(self, y: Complex[Array, "b coils m"]) -> Complex[Array, "b *space 1"]:
        """The conjugate transpose."""
        return jnp.sum(jnp.conj(self.maps) * nufft_adjoint(y, self.plan), axis=1)[..., None]

    def init(self, y: Complex[Array, "b coils m"]) -> Complex[Array, "b *space 1"]:
        """Gridding: the adjoint of samples weighted by the area for which they stand."""
        return self.adjoint(y * self.plan.density[None, None])


def nufft(x: Inexact[Array, "*space"], plan: Plan) -> Complex[Array, "*samples"]:
    """The orthonormal Fourier transform of images `(…, *shape)` at the plan's samples, `(…, m)`; error about 1e-5."""
    ndim = len(plan.shape)
    if x.shape[-ndim:] != plan.shape:
        raise UserError("nufft.shape", f"image {x.shape[-ndim:]} where the plan has {plan.shape}; make them equal")
    wide = jnp.pad(_scaled(x, plan), [(0, 0)] * (x.ndim - ndim) + _margins(plan))
    cells = _as_columns(fft(wide, ndim), ndim)
    samples = linear.apply(_interpolation(plan), cells, *_tables(plan))
    return _from_columns(samples, x.shape[:-ndim])


def nufft_adjoint(y: Complex[Array, "*samples"], plan: Plan) -> Complex[Array, "*space"]:
    """The conjugate transpose of `nufft`: samples `(…, m)` to images `(…, *shape)`."""
    ndim = len(plan.shape)
    cells = linear.apply_transpose(_interpolation(plan), _as_columns(y, 1), *_tables(plan))
    wide = ifft(_from_columns(cells, (*y.shape[:-1], *plan.grid), space=ndim), ndim)
    inside = tuple(slice(low, low + n) for (low, _), n in zip(_margins(plan), plan.shape, strict=True))
    return _scaled(wide[(..., *inside)], plan)


def plan(trajectory: Float[np.ndarray, "m n"], shape: tuple[int, ...], width: int = 6, oversampling: float = 2.0) -> Plan:
    """Makes a trajectory ready. A wider kernel or a finer grid is more exact: 6 and 2 err by about 1e-5."""
    trajectory = np.asarray(trajectory, np.float64)
    if trajectory.ndim != 2 or trajectory.shape[1] != len(shape):
        raise UserError("nufft.trajectory", f"shape {trajectory.shape} for images {shape}; give (samples, {len(shape)})")
    if np.abs(trajectory).max() > max(shape) / 2 + 1e-6:
        raise UserError("nufft.trajectory", f"reaches {np.abs(trajectory).max():.4g} cycles; at most half the image's size")
    grid = tuple(int(np.ceil(oversampling * n / _TILE)) * _TILE for n in shape)
    beta = [np.pi * np.sqrt((width * n / g) ** 2 * (g / n - 0.5) ** 2 - 0.8) for n, g in zip(shape, grid, strict=True)]
    place = trajectory * np.divide(grid, shape) + np.asarray(grid) // 2
    first = np.ceil(place - width / 2).astype(np.int64)
    away = first[:, :, None] + np.arange(width) - place[:, :, None]
    weights = np.i0(np.asarray(beta)[:, None] * np.sqrt(np.maximum(1 - (2 * away / width) ** 2, 0)))
    deapodise = tuple(_deapodisation(n, g, b, width) for n, g, b in zip(shape, grid, beta, strict=True))
    first = np.mod(first, grid).astype(np.int32)
    tiles, members = _bins(first, grid)
    made = Plan(jnp.asarray(first), jnp.asarray(weights, jnp.float32), deapodise, jnp.ones(len(place)), tiles, members,
                tuple(shape), grid)
    integral = np.prod([weights[:, a].sum(-1).mean() for a in range(len(shape))])
    area = np.prod(np.divide(shape, grid)) * integral**2
    density = _density(made) * area
    return Plan(made.first, made.weights, deapodise, density, tiles, members, made.shape, grid)


def radial(spokes: int, samples: int, size: int) -> np.ndarray:
    """Diameters of k-space turned by the golden angle, `(spokes * samples, 2)`, for images of `size` (Winkelmann 2007)."""
    angles = np.arange(spokes) * np.pi * (np.sqrt(5) - 1) / 2
    radius = (np.arange(samples) - samples / 2) * size / samples
    return np.stack([radius * np.sin(angles)[:, None], radius * np.cos(angles)[:, None]], -1).reshape(-1, 2)


def spiral(interleaves: int, samples: int, size: int, turns: float | None = None) -> np.ndarray:
    """Archimedean spirals, evenly turned, `(interleaves * samples, 2)`; by default as many `turns` as Nyquist asks for.

    The radius grows as time to the power 2/3, as a limited slew rate makes it (Glover 1999).
    """
    turns = size / (2 * interleaves) if turns is None else turns
    along = (np.arange(samples) / samples) ** (2 / 3)
    angles = 2 * np.pi * (turns * along + np.arange(interleaves)[:, None] / interleaves)
    return np.stack([along * np.sin(angles), along * np.cos(angles)], -1).reshape(-1, 2) * size / 2


@dataclass(frozen=True)
class _Interpolation:
    """From grid cells `(cells, n)` to samples `(m, n)` with the kernel, and back."""

    grid: tuple[int, ...]
    width: int
    columns = -1

    def forward(self, cells: Float[Array, "cells n"], first: Int[Array, "m ndim"], weights: Float[Array, "m ndim width"],
                *bins: Array) -> Float[Array, "m n"]:
        """Every sample gathers from the cells around it: a loop over all axes but the last, which is unrolled."""
        ndim = len(self.grid)

        def add(total: Array, offset: Array) -> tuple[Array, None]:
            row: Any = 0
            weight: Any = 1.0
            for axis in range(ndim - 1):
                row = row * self.grid[axis] + jnp.mod(first[:, axis] + offset[axis], self.grid[axis])
                weight = weight * jnp.take(weights[:, axis], offset[axis], axis=1)
            for step in range(self.width):
                cell = row * self.grid[-1] + jnp.mod(first[:, -1] + step, self.grid[-1])
                total = total + (weight * weights[:, -1, step])[:, None] * take(cells, cell)
            return total, None

        offsets = np.asarray(list(itertools.product(range(self.width), repeat=ndim - 1)), np.int32)
        start = zeros((first.shape[0], cells.shape[1]), cells)
        return lax.scan(add, start, jnp.asarray(offsets.reshape(-1, ndim - 1)))[0]

    def transpose(self, samples: Float[Array, "m n"], first: Int[Array, "m ndim"], weights: Float[Array, "m ndim width"],
                  *bins: Array) -> Float[Array, "cells n"]:
        """Every tile of the grid sums its samples, as a product of two kernel matrices; overlaps of tiles are added."""
        ndim, n = len(self.grid), samples.shape[1]
        reach = _TILE + self.width - 1
        counts = [g // _TILE for g in self.grid]
        tiles, members = bins[: len(bins) // 2], bins[len(bins) // 2:]
        padded = [jnp.pad(t, [(0, 1)] + [(0, 0)] * (t.ndim - 1)) for t in (samples, first % _TILE, weights)]
        windows = zeros((int(np.prod(counts)), *[reach] * ndim, n), samples)
        for tile, member in zip(tiles, members, strict=True):
            per_tile = member.shape[1] * reach ** (ndim - 1) * n
            sums = lax.map(lambda ids: self._window(ids, *padded), member, batch_size=max(1, _CHUNK // per_tile))
            windows = windows.at[tile].set(sums, unique_indices=True, indices_are_sorted=True)
        return self._overlap(windows.reshape(*counts, *windows.shape[1:])).reshape(-1, n)

    def _window(self, ids: Int[Array, " k"], samples: Float[Array, "m n"], offset: Int[Array, "m ndim"],
                weights: Float[Array, "m ndim width"]) -> Float[Array, "*reach n"]:
        """The cells around one tile, from the samples `ids`: `(reach…, n)`."""
        cell = jnp.arange(_TILE + self.width - 1)[None]
        value = take(samples, ids)
        kernels = []
        for axis in range(len(self.grid)):
            away = cell - take(offset[:, axis], ids)[:, None]
            taps = take(weights[:, axis], ids)
            kernel: Any = sum(jnp.where(away == k, taps[:, k:k + 1], 0) for k in range(self.width))
            kernels.append(kernel)
        for kernel in kernels[:0:-1]:
            value = kernel.reshape(*kernel.shape, *[1] * (value.ndim - 1)) * value[:, None]
        return jnp.tensordot(kernels[0], value, (0, 0), precision="highest")

    def _overlap(self, windows: Float[Array, "*tiles n"]) -> Float[Array, "*grid n"]:
        """Windows `(tiles…, reach…, n)` added up on the periodic grid."""
        ndim = len(self.grid)
        for axis in range(ndim):
            # What lies past the tile's end belongs to the next one.
            head, tail = jnp.split(windows, [_TILE], axis=ndim + axis)
            fill = [(0, 0)] * windows.ndim
            fill[ndim + axis] = (0, _TILE - (self.width - 1))
            windows = head + jnp.roll(jnp.pad(tail, fill), 1, axis)
        order = [a for axis in range(ndim) for a in (axis, ndim + axis)]
        return jnp.transpose(windows, (*order, 2 * ndim))


def _interpolation(plan: Plan) -> _Interpolation:
    return _Interpolation(plan.grid, plan.weights.shape[-1])


def _tables(plan: Plan) -> tuple[Array, ...]:
    return plan.first, plan.weights, *plan.tiles, *plan.members


def _scaled(x: Inexact[Array, "*s"], plan: Plan) -> Inexact[Array, "*s"]:
    for axis, factor in enumerate(plan.deapodise):
        x = x * factor.reshape(*(-1 if a == x.ndim - len(plan.shape) + axis else 1 for a in range(x.ndim)))
    return x


def _margins(plan: Plan) -> list[tuple[int, int]]:
    """What the image gets on either side to fill the grid, its centre kept."""
    return [(g // 2 - n // 2, g - n - (g // 2 - n // 2)) for n, g in zip(plan.shape, plan.grid, strict=True)]


def _as_columns(v: Complex[Array, "*s"], space: int) -> Float[Array, "cells n2"]:
    """Complex `(…, *space)` to real `(cells, 2 n)`."""
    flat = v.reshape(-1, int(np.prod(v.shape[v.ndim - space:]))).T
    return jnp.stack([flat.real, flat.imag], axis=2).reshape(len(flat), -1)


def _from_columns(columns: Float[Array, "cells n2"], shape: tuple[int, ...],
                  space: int | None = None) -> Complex[Array, "*s"]:
    """Real `(cells, 2 n)` to complex `(*shape, cells)`, or, with `space` axes, `shape`."""
    pairs = columns.reshape(len(columns), -1, 2)
    flat = lax.complex(pairs[..., 0], pairs[..., 1]).T
    return flat.reshape(*shape, -1) if space is None else flat.reshape(shape)


def _deapodisation(n: int, grid: int, beta: float, width: int) -> Float[Array, " n"]:
    """One over the kernel's transform, and the root by which the finer grid's transform is smaller."""
    t = np.sqrt((beta**2 - (np.pi * width * (np.arange(n) - n // 2) / grid) ** 2).astype(complex))
    transform = (width * np.sinh(t) / t).real
    return jnp.asarray(np.sqrt(grid / n) / transform, jnp.float32)


def _bins(first: Int[np.ndarray, "m ndim"], grid: tuple[int, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Tiles grouped by the power of two that holds their number of samples, and the samples of each."""
    counts = [g // _TILE for g in grid]
    tile = np.ravel_multi_index(tuple((first // _TILE).T), counts)
    order = np.argsort(tile, kind="stable")
    occupied, start, number = np.unique(tile[order], return_index=True, return_counts=True)
    size = np.maximum(4, 2 ** np.ceil(np.log2(number)).astype(int))
    tiles, members = [], []
    for s in np.unique(size):
        chosen = np.flatnonzero(size == s)
        within = np.arange(s)[None]
        at = np.minimum(start[chosen, None] + within, len(order) - 1)
        members.append(jnp.asarray(np.where(within < number[chosen, None], order[at], len(first)).astype(np.int32)))
        tiles.append(jnp.asarray(occupied[chosen].astype(np.int32)))
    return tuple(tiles), tuple(members)


@jax.jit
def _density(plan: Plan, iterations: int = 15) -> Float[Array, " m"]:
    """Weights with which the samples cover their surroundings evenly (Pipe and Menon 1999)."""
    interpolation, tables = _interpolation(plan), _tables(plan)

    def step(w: Array, _: None) -> tuple[Array, None]:
        covered = linear.apply(interpolation, linear.apply_transpose(interpolation, w, *tables), *tables)
        return w / covered, None

    return lax.scan(step, jnp.ones((plan.first.shape[0], 1)), length=iterations)[0][:, 0]
