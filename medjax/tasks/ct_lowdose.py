"""Low-dose CT in the image domain: the noise of fewer photons, reconstructed, on images in HU."""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from medjax.classical import denoise as classical
from medjax.physics import ct
from medjax.physics.dose import LowDose, add_noise, photons_for_noise
from medjax.physics.fbp import WINDOWS
from medjax.tasks._restoration import Baseline, Restoration, draw
from medjax.types import Batch, Example, Key, UserError

VIEWS = 360


@dataclass(frozen=True)
class CtLowDose(Restoration):
    """The full-dose image from one at `dose`, bounds between which each sample's is drawn; equal bounds fix it.

    The image is projected, gets the noise of the low dose and is reconstructed with `filter`. Either `photons` reach a
    detector unattenuated at full dose, or with `noise_hu` > 0 as many as leave that noise in the middle of 20 cm of
    water. `electronic` is read-out noise in counts. With `measured`, the images are scans that have the noise of full
    dose already, and only what is missing is added. `pixel_mm` is the size of their pixels.
    """

    dose: tuple[float, float] = (0.25, 0.25)
    photons: float = 1e5
    noise_hu: float = 0.0
    electronic: float = 5.0
    measured: bool = True
    pixel_mm: float = 0.8
    filter: str = "hann"

    def __post_init__(self):
        if self.ndim != 2:
            raise UserError("config.data.ndim", f"{self.ndim}; CT is simulated slice by slice: set it to 2")
        if len(self.dose) != 2 or not 0 < self.dose[0] <= self.dose[1] <= 1:
            raise UserError("config.task.dose", f"{self.dose} is not a pair of bounds 0 < low <= high <= 1")
        if self.photons <= 0 or self.noise_hu < 0:
            raise UserError("config.task.photons", f"{self.photons} photons, {self.noise_hu} HU; give positive numbers")
        if self.filter not in WINDOWS:
            raise UserError("config.task.filter", f"no {self.filter!r}; there is {', '.join(WINDOWS)}")

    def example(self, key: Key, batch: Batch) -> Example:
        """Low-dose images to the images as they are."""
        clean, mask = self.clean(batch)
        low, high = self.data_range
        scanner = _scanner(clean.shape[1:-1], self.pixel_mm)
        photons = _photons(scanner, self.noise_hu, self.filter) if self.noise_hu else self.photons

        def degrade(key, image):
            dose_key, noise_key = jax.random.split(key)
            noise = LowDose(photons, draw(dose_key, self.dose), self.electronic, measured=self.measured)
            hu = (image * (high - low) + low)[None]
            return (add_noise(scanner, noise, noise_key[None], hu, self.filter)[0] - low) / (high - low)

        return Example(self.per_sample(key, batch, degrade, clean), clean, mask)

    def baselines(self) -> dict[str, Baseline]:
        """Library denoisers, with the noise level they estimate from the image."""
        return {"nlm": classical.nlm, "tv": classical.tv, "wavelet": classical.wavelet}


@functools.lru_cache(maxsize=8)
def _scanner(shape: tuple[int, int], pixel_mm: float) -> ct.Parallel:
    detectors = 2 * math.ceil(math.hypot(*shape) / 2)
    return ct.Parallel(shape, pixel_mm, ct.angles(VIEWS), detectors, pixel_mm)


@functools.lru_cache(maxsize=8)
def _photons(scanner: ct.Parallel, noise_hu: float, filter: str) -> float:
    with jax.ensure_compile_time_eval():
        return float(jnp.asarray(photons_for_noise(scanner, noise_hu, filter=filter)))
