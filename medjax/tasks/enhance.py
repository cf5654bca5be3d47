"""Contrast enhancement of X-ray, ultrasound, endoscopy …: learned from pairs, or without a reference."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from medjax.classical import contrast as classical
from medjax.ops.resample import mean_pool
from medjax.tasks._restoration import Baseline, Restoration, draw
from medjax.types import Array, Batch, Example, Key, UserError

REGION = 4  # voxels; how large the regions are whose differences the spatial loss keeps
PATCH = 16  # voxels; how large the patches are that should be well exposed


@dataclass(frozen=True)
class Enhance(Restoration):
    """The image from one that is too dark and flat.

    Each sample's gamma (above 1 darkens) and the part of the contrast that is left are drawn between bounds, then noise
    of `sigma` is added. Losses with a reference are those of restoration; those without (Guo et al., 2020) are
    `spatial`, `exposure` (to the mean brightness `level`) and `colour`, and what the model leaves (`smoothness`).
    """

    gamma: tuple[float, float] = (1.5, 2.5)
    contrast: tuple[float, float] = (0.4, 0.8)
    sigma: float = 0.01
    level: float = 0.5

    def __post_init__(self):
        for name in ("gamma", "contrast"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
                raise UserError(f"config.task.{name}", f"{bounds} is not a pair of bounds 0 < low <= high")

    def example(self, key: Key, batch: Batch) -> Example:
        """Dark, flat images to those they were made from."""
        clean, mask = self.clean(batch)

        def degrade(key: Key, image: Array) -> Array:
            gamma_key, contrast_key, noise_key = jax.random.split(key, 3)
            dark = jnp.power(jnp.clip(image, 1e-4, 1), draw(gamma_key, self.gamma))
            return dark * draw(contrast_key, self.contrast) + self.sigma * jax.random.normal(noise_key, image.shape)

        return Example(self.per_sample(key, batch, degrade, clean), clean, mask)

    def losses(self, pred: Array, example: Example) -> dict[str, Array]:
        """Those of restoration, and those that need no reference, over all voxels."""
        trained = super().losses(pred, example)
        given, made = (mean_pool(_whole(x.mean(-1, keepdims=True), REGION), REGION) for x in (example.input, pred))
        spatial = sum(jnp.square(jnp.abs(jnp.diff(made, axis=axis)) - jnp.abs(jnp.diff(given, axis=axis))).mean()
                      for axis in range(1, pred.ndim - 1))
        brightness = mean_pool(_whole(pred.mean(-1, keepdims=True), PATCH), PATCH)
        colours = pred.mean(tuple(range(1, pred.ndim - 1)))
        cast = jnp.square(colours - jnp.roll(colours, 1, -1)).sum(-1).mean()
        free = {"spatial": spatial, "exposure": jnp.square(brightness - self.level).mean(), "colour": cast}
        return trained | free

    def metrics(self, pred: Array, example: Example) -> dict[str, Array]:
        """Those of restoration, and the entropy of the grey values in bits, which needs no reference."""
        return super().metrics(pred, example) | {"entropy": _entropy(pred, example.mask)}

    def baselines(self) -> dict[str, Baseline]:
        """Histogram equalisation, CLAHE, multi-scale retinex."""
        return {"histogram": classical.histogram_equalisation, "clahe": classical.clahe,
                "retinex": classical.multiscale_retinex}


def _whole(x: Array, multiple: int) -> Array:
    """Cut to a multiple along each spatial axis; smaller axes are padded up to one."""
    pads = [(0, 0), *((0, max(0, multiple - n)) for n in x.shape[1:-1]), (0, 0)]
    x = jnp.pad(x, pads, mode="edge")
    return x[(slice(None), *(slice(0, n - n % multiple) for n in x.shape[1:-1]))]


def _entropy(image: Array, mask: Array) -> Array:
    """Bits of the histogram of 256 grey values, per sample, under the mask."""
    def one(image: Array, mask: Array) -> Array:
        bins = jnp.clip(image.mean(-1) * 256, 0, 255).astype(jnp.int32).reshape(-1)
        counts = jnp.zeros(256).at[bins].add(mask.reshape(-1).astype(jnp.float32))
        p = counts / jnp.maximum(counts.sum(), 1)
        return -(p * jnp.log2(jnp.maximum(p, 1e-12))).sum()

    return jax.vmap(one)(image, mask)
