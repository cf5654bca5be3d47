"""Low-dose CT: photon and electronic noise of line integrals, set by a dose or by the noise it leaves in the image."""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray, Real, UInt32

from medjax.ops.window import WATER_PER_MM, attenuation_to_hu, hu_to_attenuation
from medjax.physics.analytic import Ellipsoids
from medjax.physics.noise import Strength
from medjax.types import UserError, pytree, static


@pytree
class LowDose:
    """Counts of `dose * photons * exp(-y)` photons and `electronic` noise (standard deviation in counts), as line integrals.

    `photons` reach a detector unattenuated at dose 1. `method="poisson"` draws counts, without a gradient for the dose;
    "gaussian" draws normal numbers of the same mean and variance. With `measured=True` the line integrals were measured
    at dose 1 and carry that noise already: only what is missing is added (Yu et al. 2012).
    """

    photons: Strength
    dose: Strength = 1.0
    electronic: Strength = 0.0
    method: str = static(default="gaussian")
    measured: bool = static(default=False)

    def __post_init__(self) -> None:
        if self.method not in ("gaussian", "poisson"):
            raise UserError("dose.method", f"no {self.method!r}; there is gaussian, poisson")
        if self.measured and self.method != "gaussian":
            raise UserError("dose.method", "noise on top of measured noise is not Poisson; set method=gaussian")

    def __call__(self, key: PRNGKeyArray, y: Real[Array, "*s"]) -> Real[Array, "*s"]:
        """Noisy line integrals of one sample. A detector that counts less than one photon reads one."""
        if self.measured:
            return y + jnp.sqrt(self._missing_variance(y)) * jax.random.normal(key, y.shape, y.dtype)
        count_key, read_key = jax.random.split(key)
        full = self.photons * self.dose
        expected = full * jnp.exp(-y)
        read = self.electronic * jax.random.normal(read_key, y.shape, y.dtype)
        if self.method == "poisson":
            counts = jax.random.poisson(count_key, expected).astype(y.dtype)
        else:
            counts = expected + jnp.sqrt(expected) * jax.random.normal(count_key, y.shape, y.dtype)
        return jnp.log(full) - jnp.log(jnp.maximum(counts + read, 1))

    def _missing_variance(self, y: Real[Array, "*s"]) -> Real[Array, "*s"]:
        rest = (1 - self.dose) / self.dose
        shot = jnp.exp(y) / self.photons
        return rest * shot * (1 + (1 + self.dose) / self.dose * jnp.square(self.electronic) * shot)


@runtime_checkable
class Scanner(Protocol):
    """A CT geometry: `Parallel`, `Fan` or `Cone`."""

    def __call__(self, x: Array) -> Array: ...

    def fbp(self, y: Array, filter: str = "ramp") -> Array: ...


def add_noise(scanner: Scanner, noise: LowDose, key: Key[Array, " b"] | UInt32[Array, "b 2"], hu: Array,
              filter: str = "ramp", water: float | Real[Array, ""] = WATER_PER_MM) -> Array:
    """CT images in HU as a scan at the given dose would show them: `hu` plus the reconstruction of the noise alone.

    One key per image. What the images show, sharpness included, stays; only noise is added.
    """
    clean = scanner(hu_to_attenuation(hu, water))
    noisy = jax.vmap(noise)(key, clean)
    return hu + scanner.fbp(noisy - clean, filter) * (1000 / water)


def photons_for_noise(scanner: Scanner, noise_hu: float, diameter_mm: float = 200.0, filter: str = "ramp",
                      water: float = WATER_PER_MM) -> float:
    """The `photons` with which a water disc or ball shows noise of `noise_hu` (standard deviation) in its middle.

    Measured on reconstructed noise with a fixed seed, to about 2 %; electronic noise comes on top.
    """
    if noise_hu <= 0:
        raise UserError("dose.noise_hu", f"{noise_hu} HU; give a positive standard deviation")
    plane: Any = getattr(scanner, "plane", scanner)
    disc = Ellipsoids(np.zeros((1, 2)), np.full((1, 2), diameter_mm / 2), np.zeros(1), np.full(1, water))
    deviation = np.exp(disc.line_integrals(*plane.rays()) / 2).astype(np.float32)[None, ..., None]
    draws = deviation * np.random.default_rng(0).standard_normal((8, *deviation.shape[1:]), np.float32)
    middle = jax.jit(lambda y: _middle(plane.fbp(y, filter)))(draws)
    return float(np.square(np.std(attenuation_to_hu(middle, water)) / noise_hu))


def _middle(image: Array) -> Array:
    """The central eighth of each axis."""
    cut = [slice(n // 2 - max(n // 16, 2), n // 2 + max(n // 16, 2)) for n in image.shape[1:3]]
    return image[:, cut[0], cut[1]]
