"""Multi-coil Cartesian MRI: sampling, coil sensitivities and the operator between a complex image and its k-space.

Images are complex `(B, *space, 1)`, k-space and sensitivities complex `(B, coils, *space)`, in 2-D or 3-D, with the centre
of k-space at index `n // 2`. Transforms are orthonormal, so image and k-space have noise of the same standard deviation.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Inexact, PRNGKeyArray, Real

from medjax.ops.fft import fft, ifft
from medjax.types import UserError, pytree

Image = Complex[Array, "b *space 1"]
KSpace = Complex[Array, "b coils *space"]


@pytree
class Cartesian:
    """`mask * FFT(maps * x)`: SENSE encoding (Pruessmann 1999).

    `maps` `(B or 1, coils, *space)`; `mask` `(B or 1, 1, *space)` is true where k-space is measured.
    """

    maps: KSpace
    mask: Bool[Array, "#b 1 *space"] | Real[Array, "#b 1 *space"]

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return self.maps.ndim - 2

    def __call__(self, x: Image) -> KSpace:
        """The measured k-space, 0 elsewhere."""
        self._check(x.shape[1:-1])
        return self.mask * fft(self.maps * jnp.moveaxis(x, -1, 1), self.ndim)

    def adjoint(self, y: KSpace) -> Image:
        """The conjugate transpose: zero-filled coil images, combined by the maps."""
        self._check(y.shape[2:])
        return jnp.sum(jnp.conj(self.maps) * ifft(self.mask * y, self.ndim), axis=1)[..., None]

    def init(self, y: KSpace) -> Image:
        """The zero-filled image; with maps whose squares sum to 1 it has the object's intensity."""
        return self.adjoint(y)

    def _check(self, space: tuple[int, ...]) -> None:
        if space != self.maps.shape[2:]:
            raise UserError("mri.shape", f"{space} where the coil maps have {self.maps.shape[2:]}; make them equal")


def to_channels(x: Complex[Array, "*s 1"]) -> Float[Array, "*s 2"]:
    """Real and imaginary part as two channels, as networks take them."""
    return jnp.concatenate([x.real, x.imag], axis=-1)


def to_complex(x: Float[Array, "*s 2"]) -> Complex[Array, "*s 1"]:
    """Two channels as real and imaginary part."""
    return jax.lax.complex(x[..., :1], x[..., 1:])


def root_sum_of_squares(coil_images: Inexact[Array, "b coils *space"]) -> Float[Array, "b *space 1"]:
    """Coil images to one magnitude image (Roemer 1990)."""
    return jnp.sqrt(jnp.sum(jnp.square(jnp.abs(coil_images)), axis=1))[..., None]


def random_lines(key: PRNGKeyArray, shape: tuple[int, ...], acceleration: float,
                 centre: float = 0.08) -> Bool[Array, "*s"]:
    """Whole lines along the first axis at random places of the last, a `centre` fraction in the middle always (fastMRI).

    Exactly `size / acceleration` lines, rounded.
    """
    size, total, middle = _line_counts(shape, acceleration, centre)
    rank = jax.random.uniform(key, (size,)).at[middle].set(2.0)
    chosen = jnp.zeros(size, bool).at[jnp.argsort(-rank)[:total]].set(True)
    return jnp.broadcast_to(chosen, shape)


def equispaced_lines(key: PRNGKeyArray, shape: tuple[int, ...], acceleration: float,
                     centre: float = 0.08) -> Bool[Array, "*s"]:
    """Whole lines along the first axis, evenly spaced from a random start, a `centre` fraction in the middle always.

    The spacing outside the middle is widened, so that the fraction `1 / acceleration` is kept (plain every-fourth-line
    masks with 8 % in the middle accelerate by 3.23 only).
    """
    size, total, middle = _line_counts(shape, acceleration, centre)
    outside = np.setdiff1d(np.arange(size), np.arange(size)[middle])
    count = total - (size - len(outside))
    step = len(outside) / max(count, 1)
    places = jnp.floor((jnp.arange(count) + jax.random.uniform(key, ())) * step).astype(jnp.int32)
    lines = jnp.asarray(outside)[jnp.minimum(places, len(outside) - 1)]
    chosen = jnp.zeros(size, bool).at[middle].set(True).at[lines].set(True)
    return jnp.broadcast_to(chosen, shape)


def radial_lines(shape: tuple[int, int], spokes: int, start: float = 0.0) -> Bool[Array, "h w"]:
    """Cartesian samples nearest to `spokes` diameters, turned by the golden angle from `start` radians (Winkelmann 2007)."""
    angles = start + np.arange(spokes) * np.pi * (np.sqrt(5) - 1) / 2
    radius = np.linspace(-0.5, 0.5, 2 * max(shape))
    mask = np.zeros(shape, bool)
    for axis_rows, axis_columns in zip(np.sin(angles), np.cos(angles), strict=True):
        row, column = (np.round(radius * a * n).astype(int) + n // 2
                       for a, n in zip((axis_rows, axis_columns), shape, strict=True))
        inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
        mask[row[inside], column[inside]] = True
    return jnp.asarray(mask)


def poisson_disc(shape: tuple[int, int], acceleration: float, centre: tuple[int, int] = (24, 24),
                 seed: int = 0) -> Bool[Array, "h w"]:
    """Two phase-encoding axes: samples that keep a distance which grows from the centre (Bridson 2007, Lustig 2010).

    The block `centre` is full. The distance is fitted so that the acceleration is met within 2 %.
    """
    if acceleration <= 1 or np.prod(centre) * acceleration > np.prod(shape):
        raise UserError("mri.acceleration", f"{acceleration:g} with a full centre of {centre} in {shape} can't be met")
    low, high = 0.0, 20.0
    for _ in range(20):
        slope = (low + high) / 2
        mask = _scatter(shape, slope, centre, seed)
        reached = mask.size / mask.sum()
        if abs(reached / acceleration - 1) < 0.02:
            break
        low, high = (slope, high) if reached < acceleration else (low, slope)
    return jnp.asarray(mask)


def split_samples(key: PRNGKeyArray, mask: Bool[Array, "*s"], held: float = 0.4,
                  keep: int = 4) -> tuple[Bool[Array, "*s"], Bool[Array, "*s"]]:
    """A mask in two disjoint ones, to reconstruct from and to evaluate on: SSDU (Yaman 2020).

    A `held` fraction of the samples, at random, goes to the second; a block of `keep` in the centre stays in the first.
    """
    block = np.ones(mask.shape, bool)
    for axis, n in enumerate(mask.shape):
        inside = np.isin(np.arange(n), np.arange(keep) + n // 2 - keep // 2)
        block &= np.expand_dims(inside, tuple(a for a in range(mask.ndim) if a != axis))
    second = mask & ~block & (jax.random.uniform(key, mask.shape) < held)
    return mask & ~second, second


def birdcage(coils: int, shape: tuple[int, ...], radius: float = 1.5) -> Complex[Array, "coils *space"]:
    """Sensitivities of `coils` loops on a cylinder of `radius` half-widths around the first axis of two, or of the last
    two of three, with the phase of their place; their squares sum to 1."""
    grids = np.meshgrid(*((np.arange(n) - n // 2) / (n / 2) for n in shape), indexing="ij")
    angles = np.arange(coils) * 2 * np.pi / coils
    maps = []
    for angle in angles:
        x, y = grids[-1] - radius * np.cos(angle), grids[-2] - radius * np.sin(angle)
        away = x**2 + y**2 + (grids[0] ** 2 / 4 if len(shape) == 3 else 0)
        maps.append(np.exp(1j * np.arctan2(x, -y) - 1j * angle) / np.sqrt(away))
    stacked = np.stack(maps)
    return jnp.asarray(stacked / np.sqrt((np.abs(stacked) ** 2).sum(0)), jnp.complex64)


def ring_covariance(coils: int, correlation: float) -> Float[np.ndarray, "coils coils"]:
    """Of the noise of `coils` of unit variance on a ring: `correlation` (0 to below 1) to the power of how many coils apart.

    Neighbours thus have `correlation`, and the matrix is positive definite for any number of coils. Noise of arrays is
    correlated because coils couple and share the resistance of the body (Roemer 1990).
    """
    apart = np.abs(np.subtract.outer(np.arange(coils), np.arange(coils)))
    return np.power(float(correlation), np.minimum(apart, coils - apart))


def smooth_phase(key: PRNGKeyArray, shape: tuple[int, ...], strength: float = 1.0) -> Complex[Array, "*s"]:
    """A phase that varies slowly over the image, to make complex images of magnitudes: `exp(i phi)`.

    `phi` is a random quadratic whose coefficients have standard deviation `strength` radians.
    """
    axes = [jnp.expand_dims(jnp.linspace(-1, 1, n), tuple(b for b in range(len(shape)) if b != a))
            for a, n in enumerate(shape)]
    terms = [jnp.ones(shape)] + [jnp.broadcast_to(a, shape) for a in axes] + [
        jnp.broadcast_to(a * b, shape) for i, a in enumerate(axes) for b in axes[i:]]
    weights = strength * jax.random.normal(key, (len(terms),))
    return jnp.exp(1j * sum(w * t for w, t in zip(weights, terms, strict=True)))


def _line_counts(shape: tuple[int, ...], acceleration: float, centre: float) -> tuple[int, int, slice]:
    size = shape[-1]
    total, low = round(size / acceleration), round(size * centre)
    if acceleration < 1 or low > total:
        problem = f"{acceleration:g} leaves {total} of {size} lines, fewer than the centre's {low}"
        raise UserError("mri.acceleration", problem)
    start = size // 2 - low // 2
    return size, total, slice(start, start + low)


def _scatter(shape: tuple[int, int], slope: float, centre: Sequence[int], seed: int) -> Bool[np.ndarray, "h w"]:
    """Random places, each taken if no taken one lies within the distance there."""
    rows, columns = shape
    r = np.hypot(*np.meshgrid(*((np.arange(n) - n // 2) / (n / 2) for n in shape), indexing="ij"))
    reach = 0.5 + slope * r
    mask = np.zeros(shape, bool)
    for place in np.random.default_rng(seed).permutation(rows * columns):
        row, column = divmod(int(place), columns)
        d = reach[row, column]
        n = int(d)
        near = mask[max(row - n, 0):row + n + 1, max(column - n, 0):column + n + 1]
        if near.any():
            at = np.argwhere(near) - (min(row, n), min(column, n))
            if (np.square(at).sum(1) < d * d).any():
                continue
        mask[row, column] = True
    start = [n // 2 - c // 2 for n, c in zip(shape, centre, strict=True)]
    mask[start[0]:start[0] + centre[0], start[1]:start[1] + centre[1]] = True
    return mask
