"""What a scanner adds by chance. A noise is a pytree called as `noise(key, y)` on one sample, its strength traceable.

A strength may thus be drawn per sample, differentiated, or batched with `jax.vmap`; the caller folds a key per sample.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, PRNGKeyArray, Real

from medjax.ops.separable import correlate_axis, gaussian_taps, pad_axis
from medjax.types import UserError, pytree, static

Strength = float | Real[Array, ""]


@pytree
class Gaussian:
    """Adds normal noise of standard deviation `sigma`; of complex data in the real and the imaginary part each."""

    sigma: Strength

    def __call__(self, key: PRNGKeyArray, y: Inexact[Array, "*s"]) -> Inexact[Array, "*s"]:
        return y + self.sigma * _normal(key, y)


@pytree
class CoilNoise:
    """Adds complex normal noise to `(coils, *space)`, correlated between coils but not in space.

    Real and imaginary part each have the covariance `sigma^2 * factor @ factor.T`, `factor` `(coils, coils)` its Cholesky
    factor (Pruessmann et al. 2001).
    """

    sigma: Strength
    factor: Real[Array, "coils coils"]

    def __call__(self, key: PRNGKeyArray, y: Inexact[Array, "coils *s"]) -> Inexact[Array, "coils *s"]:
        return y + self.sigma * jnp.tensordot(self.factor, _normal(key, y), 1, precision="highest")


@pytree
class Rician:
    """The magnitude of `y` with complex normal noise, `sigma` per part: a magnitude MR image of one coil (Gudbjartsson
    and Patz 1995)."""

    sigma: Strength

    def __call__(self, key: PRNGKeyArray, y: Inexact[Array, "*s"]) -> Real[Array, "*s"]:
        parts = self.sigma * jax.random.normal(key, (2, *y.shape), jnp.finfo(y.dtype).dtype)
        return jnp.hypot(jnp.real(y) + parts[0], jnp.imag(y) + parts[1])


@pytree
class PoissonGaussian:
    """Photon noise of `photons` counts where `y` is 1, then normal read-out noise `sigma` in units of `y` (Foi 2008).

    `method="poisson"` draws counts: exact, slow, and without a gradient for `photons`. `method="gaussian"` draws
    normal numbers of the same variance `y / photons + sigma^2`: fast, differentiable, right from about 20 counts up.
    """

    photons: Strength
    sigma: Strength = 0.0
    method: str = static(default="gaussian")

    def __post_init__(self) -> None:
        if self.method not in ("gaussian", "poisson"):
            raise UserError("noise.method", f"no {self.method!r}; there is gaussian, poisson")

    def __call__(self, key: PRNGKeyArray, y: Real[Array, "*s"]) -> Real[Array, "*s"]:
        rate = jnp.maximum(y, 0)
        if self.method == "gaussian":
            variance = rate / self.photons + jnp.square(self.sigma)
            return y + jnp.sqrt(jnp.maximum(variance, jnp.finfo(y.dtype).tiny)) * _normal(key, y)
        shot_key, read_key = jax.random.split(key)
        counts = jax.random.poisson(shot_key, rate * self.photons).astype(y.dtype)
        return counts / self.photons + self.sigma * _normal(read_key, y)


@pytree
class Speckle:
    """Multiplies the echo amplitude `y` by `|sqrt(1 - strength^2) + strength n|`, `n` complex normal of unit power.

    `strength` 1 is fully developed (Rayleigh) speckle; below 1 a steady echo adds to the diffuse one (Wagner 1983).
    `grain` is the resolution cell in pixels per axis of `y` but the last (standard deviation of a Gaussian), empty for
    none. With `range_db`, `y` is a B-mode image, log-compressed so that 0 … 1 spans `range_db` decibels, and comes back
    as one, clipped to that range.
    """

    strength: Strength = 1.0
    grain: tuple[float, ...] = static(default=())
    range_db: float | None = static(default=None)

    def __call__(self, key: PRNGKeyArray, y: Real[Array, "*s c"]) -> Real[Array, "*s c"]:
        if self.grain and len(self.grain) != y.ndim - 1:
            raise UserError("noise.grain", f"{len(self.grain)} sizes for {y.ndim - 1} axes; give one per axis")
        parts = jax.random.normal(key, (2, *y.shape), y.dtype) * jnp.sqrt(0.5).astype(y.dtype)
        for axis, size in enumerate(self.grain, start=1):
            parts = _correlate(parts, size, axis)
        diffuse = self.strength * parts
        steady = jnp.sqrt(jnp.maximum(1 - jnp.square(self.strength), 0))
        factor = jnp.hypot(steady + diffuse[0], diffuse[1])
        if self.range_db is None:
            return y * factor
        decibels = 20 * jnp.log10(jnp.maximum(factor, jnp.finfo(y.dtype).tiny))
        return jnp.clip(y + decibels / self.range_db, 0, 1)


@pytree
class SaltAndPepper:
    """Sets a `fraction` of the pixels to `low` or `high`, in all channels at once: dead and hot detector elements."""

    fraction: Strength
    low: Strength = 0.0
    high: Strength = 1.0

    def __call__(self, key: PRNGKeyArray, y: Real[Array, "*s c"]) -> Real[Array, "*s c"]:
        draw = jax.random.uniform(key, (*y.shape[:-1], 1), y.dtype)
        struck = jnp.where(draw < self.fraction / 2, self.low, self.high).astype(y.dtype)
        return jnp.where(draw < self.fraction, struck, y)


def _normal(key: PRNGKeyArray, y: Inexact[Array, "*s"]) -> Inexact[Array, "*s"]:
    """Normal numbers of unit variance, for complex data in each part."""
    if not jnp.issubdtype(y.dtype, jnp.complexfloating):
        return jax.random.normal(key, y.shape, y.dtype)
    parts = jax.random.normal(key, (2, *y.shape), jnp.finfo(y.dtype).dtype)
    return jax.lax.complex(parts[0], parts[1])


def _correlate(white: Real[Array, "*s"], size: float, axis: int) -> Real[Array, "*s"]:
    """White noise smoothed along `axis` by a Gaussian of standard deviation `size`, its variance kept."""
    radius = math.ceil(3 * size)
    taps = gaussian_taps(size, radius)
    return correlate_axis(pad_axis(white, radius, radius, axis, "wrap"), taps / jnp.linalg.norm(taps), axis)
