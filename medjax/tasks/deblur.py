"""Deblurring: Gaussian blur or straight motion, known, with noise."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from medjax.physics.noise import Gaussian
from medjax.physics.optics import Blur
from medjax.physics.sampling import PerSample
from medjax.tasks._base import draw
from medjax.tasks._reconstruction import Reconstruction, operator_of, with_operator
from medjax.types import Array, Batch, Key, Measurement, NetworkInput, UserError, check_bounds, check_choice


@dataclass(frozen=True)
class Deblur(Reconstruction):
    """The sharp image from one blurred by `blur` "gaussian" (standard deviation) or "motion" (length, any direction, 2-D).

    `size` is in pixels, a pair of bounds between which each sample's is drawn; equal bounds fix it. `sigma` is the noise
    as a fraction of the range. The context knows the blur; a network may ignore it. Images of a file have a known blur
    only where it is Gaussian and its size is fixed.
    """

    blur: str = "gaussian"
    size: tuple[float, float] = (1.0, 2.5)
    sigma: float = 0.01

    def __post_init__(self) -> None:
        check_choice("config.task.blur", self.blur, ("gaussian", "motion"))
        check_bounds("config.task.size", self.size)
        if self.blur == "motion" and self.ndim != 2:
            raise UserError("config.task.blur", "motion is 2-D: set config.data.ndim=2, or blur=gaussian")

    @property
    def noisy(self) -> bool:
        """Whether `sigma` is above 0."""
        return self.sigma > 0

    def noise(self, measurement: Measurement, spacing_mm: Array) -> Array:
        """`sigma`."""
        return jnp.asarray(self.sigma)

    def simulate(self, key: Key, batch: Batch, clean: Array) -> Batch:
        """Blurred, noisy images, and the operator that blurred them."""
        blur_key, noise_key = jax.random.split(key)
        operator = PerSample(jax.vmap(self._blur)(self.keys(blur_key, batch)))
        y = self.per_sample(noise_key, batch, Gaussian(self.sigma), operator(clean))
        return with_operator(self.with_image(batch, y), operator)

    def input(self, batch: Batch) -> NetworkInput:
        """The blurred image; the context has the blur where it is known."""
        image, _ = self.unit(batch)
        operator = operator_of(batch)
        if operator is not None:
            return self.measured(operator, image)
        if self.blur == "gaussian" and self.size[0] == self.size[1]:
            return self.measured(self._gaussian(jnp.asarray(self.size[0])), image)
        return NetworkInput(image)

    def _blur(self, key: Key) -> Blur:
        size_key, angle_key = jax.random.split(key)
        size = draw(size_key, self.size)
        if self.blur == "gaussian":
            return self._gaussian(size)
        return Blur.motion(size, draw(angle_key, (0.0, np.pi)), radius=math.ceil(self.size[1] / 2) + 1)

    def _gaussian(self, size: Array) -> Blur:
        return Blur.gaussian(size, self.ndim, radius=math.ceil(3 * self.size[1]))
