"""Deblurring: Gaussian blur or straight motion, known, with noise."""

import functools
import math
from dataclasses import dataclass

import jax
import numpy as np

from medjax.classical import iterative
from medjax.physics.noise import Gaussian
from medjax.physics.optics import Blur
from medjax.physics.sampling import PerSample
from medjax.tasks._reconstruction import Reconstruction, Solver
from medjax.tasks._restoration import draw
from medjax.types import Batch, Example, Key, UserError


@dataclass(frozen=True)
class Deblur(Reconstruction):
    """The sharp image from one blurred by `blur` "gaussian" (standard deviation) or "motion" (length, any direction, 2-D).

    `size` is in pixels, a pair of bounds between which each sample's is drawn; equal bounds fix it. `sigma` is the noise
    as a fraction of the range. The context knows the blur; a network may ignore it.
    """

    blur: str = "gaussian"
    size: tuple[float, float] = (1.0, 2.5)
    sigma: float = 0.01
    tv_weight: float = 2e-3

    def __post_init__(self):
        if self.blur not in ("gaussian", "motion"):
            raise UserError("config.task.blur", f"no {self.blur!r}; there is gaussian, motion")
        if self.blur == "motion" and self.ndim != 2:
            raise UserError("config.task.blur", "motion is 2-D: set config.data.ndim=2, or blur=gaussian")
        if len(self.size) != 2 or not 0 < self.size[0] <= self.size[1]:
            raise UserError("config.task.size", f"{self.size} is not a pair of bounds 0 < low <= high, in pixels")

    def example(self, key: Key, batch: Batch) -> Example:
        """Blurred, noisy images to sharp ones."""
        clean, mask = self.clean(batch)
        blur_key, noise_key = jax.random.split(key)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(blur_key, batch["id"])
        operator = PerSample(jax.vmap(self._blur)(keys))
        y = self.per_sample(noise_key, batch, Gaussian(self.sigma), operator(clean))
        return self.measured(operator, y, clean, mask)

    def solvers(self) -> dict[str, Solver]:
        """Least squares damped by the noise (Wiener), total variation."""
        return {"wiener": functools.partial(iterative.cgls, iterations=15, damping=max(self.sigma, 1e-3)),
                "tv": functools.partial(iterative.tv, weight=self.tv_weight, iterations=150)}

    def _blur(self, key: Key) -> Blur:
        size_key, angle_key = jax.random.split(key)
        size = draw(size_key, self.size)
        if self.blur == "gaussian":
            return Blur.gaussian(size, self.ndim, radius=math.ceil(3 * self.size[1]))
        return Blur.motion(size, draw(angle_key, (0.0, np.pi)), radius=math.ceil(self.size[1] / 2) + 1)
