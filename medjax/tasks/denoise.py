"""Denoising: Gaussian, Rician, Poisson-Gaussian, speckle, salt-and-pepper."""

from dataclasses import dataclass

import jax

from medjax.classical import denoise as classical
from medjax.physics import noise
from medjax.tasks._restoration import Baseline, Restoration, draw
from medjax.types import Array, Batch, Example, Key, UserError

NOISES = {
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

    def __post_init__(self):
        if self.noise not in NOISES:
            raise UserError("config.task.noise", f"no {self.noise!r}; there is {', '.join(NOISES)}")
        if len(self.strength) != 2 or not 0 < self.strength[0] <= self.strength[1]:
            raise UserError("config.task.strength", f"{self.strength} is not a pair of bounds 0 < low <= high")

    def example(self, key: Key, batch: Batch) -> Example:
        """Noisy images to clean ones, on the device."""
        clean, mask = self.clean(batch)

        def degrade(key: Key, image: Array) -> Array:
            strength_key, noise_key = jax.random.split(key)
            return NOISES[self.noise](draw(strength_key, self.strength))(noise_key, image)

        return Example(self.per_sample(key, batch, degrade, clean), clean, mask)

    def baselines(self) -> dict[str, Baseline]:
        """Library denoisers, with the noise level they estimate from the image."""
        return {"nlm": classical.nlm, "tv": classical.tv, "wavelet": classical.wavelet}
