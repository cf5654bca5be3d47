"""Contrast enhancement of X-ray, ultrasound, endoscopy …: learned from pairs, or without a reference."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from medjax.classical._declared import NoiseModel, by_sample, methods
from medjax.classical.denoise import tv
from medjax.measures import fusion
from medjax.measures.losses import masked_mean, mean_of, sample_mean
from medjax.ops.separable import correlate_axis
from medjax.tasks._base import draw
from medjax.tasks._restoration import Restoration
from medjax.types import Array, Batch, Example, Key, Mean, Metric, Prediction, Reference, check_bounds

REGION = 4  # voxels; how large the regions are whose differences the spatial loss keeps
PATCH = 16  # voxels; how large the patches are that should be well exposed


@dataclass(frozen=True)
class Enhance(Restoration):
    """The image from one that is too dark and flat.

    Each sample's gamma (above 1 darkens) and the part of the contrast that is left are drawn between bounds, then noise
    of `sigma` is added. Losses with a reference are those of restoration; those without (Guo et al., 2020) are
    `spatial`, `exposure` (to the mean brightness `level`) and `colour`, and what the model sows (`smoothness`).
    """

    gamma: tuple[float, float] = (1.5, 2.5)
    contrast: tuple[float, float] = (0.4, 0.8)
    sigma: float = 0.01
    level: float = 0.5

    def __post_init__(self) -> None:
        check_bounds("config.task.gamma", self.gamma)
        check_bounds("config.task.contrast", self.contrast)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Those of restoration, and the entropy of the grey values."""
        return (*super().metrics, fusion.ENTROPY)

    def simulate(self, key: Key, batch: Batch, clean: Array) -> Batch:
        """Dark, flat images."""
        def degrade(key: Key, image: Array) -> Array:
            gamma_key, contrast_key, noise_key = jax.random.split(key, 3)
            dark = jnp.power(jnp.clip(image, 1e-4, 1), draw(gamma_key, self.gamma))
            return dark * draw(contrast_key, self.contrast) + self.sigma * jax.random.normal(noise_key, image.shape)

        return self.with_image(batch, self.per_sample(key, batch, degrade, clean))

    def losses(self, pred: Array, example: Example) -> dict[str, Mean]:
        """Those of restoration, and those that need no reference: over all regions that lie wholly inside the mask."""
        mask = example.mask
        (given, whole), (made, _) = (_boxes(x.mean(-1, keepdims=True), mask, REGION) for x in (example.input.image, pred))
        spatial = []
        for axis in range(1, pred.ndim - 1):
            far = min(REGION, made.shape[axis] - 1)
            lead, lag = ((slice(None),) * axis + (rows,) for rows in (slice(far, None), slice(None, made.shape[axis] - far)))
            change = jnp.abs(made[lead] - made[lag]) - jnp.abs(given[lead] - given[lag])
            spatial.append(masked_mean(jnp.square(change), whole[lead] & whole[lag]))
        brightness, lit = _boxes(pred.mean(-1, keepdims=True), mask, PATCH)
        axes = tuple(range(1, pred.ndim - 1))
        colours = (pred * mask).sum(axes) / jnp.maximum(mask.sum(axes), 1)
        cast = jnp.square(colours - jnp.roll(colours, 1, -1)).sum(-1)
        return super().losses(pred, example) | {
            "spatial": mean_of(*spatial), "exposure": masked_mean(jnp.square(brightness - self.level), lit),
            "colour": sample_mean(cast, mask)}

    def measure(self, pred: Prediction, example: Example) -> dict[str, Array]:
        """Those of restoration, and the entropy of the grey values in bits, which needs no reference."""
        grey = pred.image.mean(-1, keepdims=True)
        return super().measure(pred, example) | {"entropy": fusion.entropy(grey, example.mask, bins=256)}

    def references(self) -> dict[str, Reference]:
        """The dark image, and contrast enhancement without training, of what total variation leaves of its known noise."""
        noise = NoiseModel("gaussian", self.sigma)

        def after_denoising(enhance: Callable[..., np.ndarray]) -> Callable[[np.ndarray, float], np.ndarray]:
            return lambda x, strength: enhance(tv(x, noise), strength)

        return super().references() | {name: Reference(by_sample(after_denoising(fn)), strengths)
                                       for name, (fn, strengths) in methods("contrast").items()}


def _boxes(x: Array, mask: Array, size: int) -> tuple[Array, Array]:
    """The means of `x` `(B, *space, 1)` over all boxes of `size` voxels (or the whole of a shorter axis), and which of the
    boxes lie wholly inside the mask.
    """
    share = mask.astype(x.dtype)
    for axis in range(1, x.ndim - 1):
        n = min(size, x.shape[axis])
        taps = jnp.full((n,), 1 / n, x.dtype)
        x, share = correlate_axis(x, taps, axis), correlate_axis(share, taps, axis)
    return x, share > 1 - 0.5 / size ** (x.ndim - 2)
