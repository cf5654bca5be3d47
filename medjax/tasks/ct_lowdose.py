"""Low-dose CT in the image domain: the noise of fewer photons, reconstructed, on images in HU."""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from medjax.classical._declared import NoiseModel, denoisers
from medjax.ops.window import WATER_PER_MM
from medjax.physics import ct
from medjax.physics.dose import LowDose, add_noise, photons_for_noise
from medjax.physics.fbp import WINDOWS
from medjax.tasks._base import check_spacing, draw, spacing_of
from medjax.tasks._restoration import Restoration
from medjax.types import Array, Batch, Key, Reference, Splits, UserError, check_bounds, check_choice

VIEWS = 360


@dataclass(frozen=True)
class CtLowDose(Restoration):
    """The full-dose image from one at `dose`, bounds between which each sample's is drawn; equal bounds fix it.

    The image is projected, gets the noise of the low dose and is reconstructed with `filter`. Either `photons` reach a
    detector unattenuated at full dose, or with `noise_hu` > 0 as many as leave that noise in the middle of 20 cm of
    water. `electronic` is read-out noise in counts. With `measured`, the images are scans that have the noise of full
    dose already, and only what is missing is added. The size of the pixels is that of the files.

    A patch gets the noise of an object that ends with it, far less than that of a patient: train on whole images
    (`config.data.patch=()`).
    """

    dose: tuple[float, float] = (0.25, 0.25)
    photons: float = 1e5
    noise_hu: float = 0.0
    electronic: float = 5.0
    measured: bool = True
    filter: str = "hann"

    noise_alone = True

    def __post_init__(self) -> None:
        if self.ndim != 2:
            raise UserError("config.data.ndim", f"{self.ndim}; CT is simulated slice by slice: set it to 2")
        check_bounds("config.task.dose", self.dose, most=1)
        if self.photons <= 0 or self.noise_hu < 0:
            raise UserError("config.task.photons", f"{self.photons} photons, {self.noise_hu} HU; give positive numbers")
        check_choice("config.task.filter", self.filter, WINDOWS)

    def resolve_from_data(self, splits: Splits) -> dict[str, object]:
        """Nothing. Raises UserError for images whose pixel size is not known."""
        check_spacing(splits, "the noise of CT depends on")
        return {}

    def simulate(self, key: Key, batch: Batch, clean: Array) -> Batch:
        """Low-dose images."""
        low, high = self.data_range
        scanner = _scanner(clean.shape[1:-1])
        pixel_mm = spacing_of(batch, 2).mean(1)
        # Noise of a reconstruction falls with the square of the pixel's size, as that of the detector elements does.
        photons = _photons(scanner, self.noise_hu, self.filter) / jnp.square(pixel_mm) if self.noise_hu else \
            jnp.full(pixel_mm.shape, self.photons)

        def degrade(key: Key, image: Array, photons: Array, pixel_mm: Array) -> Array:
            dose_key, noise_key = jax.random.split(key)
            noise = LowDose(photons, draw(dose_key, self.dose), self.electronic, measured=self.measured)
            hu = (image * (high - low) + low)[None]
            # The scanner counts in pixels: water attenuates by so much per pixel.
            noisy = add_noise(scanner, noise, noise_key[None], hu, self.filter, WATER_PER_MM * pixel_mm)
            return (noisy[0] - low) / (high - low)

        return self.with_image(batch, jax.vmap(degrade)(self.keys(key, batch), clean, photons, pixel_mm))

    def references(self) -> dict[str, Reference]:
        """The low-dose image, and denoisers with the noise level that they estimate from it."""
        return super().references() | denoisers(NoiseModel("gaussian"))


@functools.lru_cache(maxsize=8)
def _scanner(shape: tuple[int, int]) -> ct.Parallel:
    """A scanner whose unit of length is the pixel."""
    detectors = 2 * math.ceil(math.hypot(*shape) / 2)
    return ct.Parallel(shape, 1.0, ct.angles(VIEWS), detectors, 1.0)


@functools.lru_cache(maxsize=8)
def _photons(scanner: ct.Parallel, noise_hu: float, filter: str) -> float:
    """The photons for that noise where pixels are 1 mm wide."""
    with jax.ensure_compile_time_eval():
        return float(jnp.asarray(photons_for_noise(scanner, noise_hu, filter=filter)))
