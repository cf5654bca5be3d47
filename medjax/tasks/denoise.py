"""Denoising: Gaussian, Rician, Poisson-Gaussian, speckle, salt-and-pepper."""

from collections.abc import Callable
from dataclasses import dataclass

import jax

from medjax.classical._declared import NoiseModel, denoisers
from medjax.physics import noise
from medjax.tasks._base import draw
from medjax.tasks._restoration import Restoration
from medjax.types import Array, Batch, Key, Reference, check_bounds, check_choice

Noise = Callable[[Key, Array], Array]
NOISES: dict[str, Callable[[Array], Noise]] = {
    "gaussian": lambda s: noise.Gaussian(s),
    "rician": lambda s: noise.Rician(s),
    # The strength is the noise at full intensity: photons = 1 / strength^2.
    "poisson_gaussian": lambda s: noise.PoissonGaussian(photons=1 / s**2, sigma=0.2 * s),
    "speckle": lambda s: noise.Speckle(s),
    "salt_pepper": lambda s: noise.SaltAndPepper(s),
}


@dataclass(frozen=True)
class Denoise(Restoration):
    """The clean image from one with `noise`.

    `strength` is a pair of bounds between which each sample's strength is drawn; equal bounds fix it. It is the
    standard deviation as a fraction of the data range (gaussian, rician; poisson_gaussian at full intensity), the
    diffuse share of the echo (speckle), or the fraction of voxels struck (salt_pepper).
    """

    noise: str = "rician"
    strength: tuple[float, float] = (0.05, 0.05)

    noise_alone = True

    def __post_init__(self) -> None:
        check_choice("config.task.noise", self.noise, NOISES)
        check_bounds("config.task.strength", self.strength)

    def simulate(self, key: Key, batch: Batch, clean: Array) -> Batch:
        """Noisy images."""
        def degrade(key: Key, image: Array) -> Array:
            strength_key, noise_key = jax.random.split(key)
            return NOISES[self.noise](draw(strength_key, self.strength))(noise_key, image)

        return self.with_image(batch, self.per_sample(key, batch, degrade, clean))

    @property
    def noise_model(self) -> NoiseModel:
        """What methods without training may know of the noise: its kind, and its strength where it is fixed."""
        return NoiseModel(self.noise, self.strength[0] if self.strength[0] == self.strength[1] else None)

    def references(self) -> dict[str, Reference]:
        """The noisy image, and denoisers that know the noise."""
        return super().references() | denoisers(self.noise_model)
