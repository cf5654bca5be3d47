"""Registration: the displacement that brings one image of a subject onto another, learnt on known deformations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.classical import register as classical
from medjax.data.split import Splits
from medjax.ops.displacement import integrate, jacobian_determinant, warp
from medjax.ops.separable import correlate_axis
from medjax.tasks._contrasts import channel_names, check_names
from medjax.tasks._restoration import Restoration
from medjax.types import Array, Batch, Example, Key

WINDOW = 9


@dataclass(frozen=True)
class Register(Restoration):
    """The displacement field (voxels) that brings a moving image onto a fixed one.

    The moving image is the contrast `moving` (the first, if empty) of the fixed image's subject, turned by up to `turn`
    degrees about each axis, shifted by up to `shift` voxels and bent by a smooth random velocity of about `bend` voxels
    that varies over `period` voxels. So the true displacement is known; it is used to judge, and to learn from only with
    the loss "supervised". `contrasts` and `spacing_mm` are filled from the data.
    """

    fixed: str = ""
    moving: str = ""
    turn: float = 5.0
    shift: float = 3.0
    bend: float = 2.0
    period: int = 16
    contrasts: tuple[str, ...] = ()
    spacing_mm: tuple[float, ...] = ()

    def outputs(self, channels: int) -> int:
        """A displacement along every axis."""
        return self.ndim

    def settled(self, splits: Splits) -> dict[str, Any]:
        """The contrasts' names and the voxel size. Raises UserError where a contrast is not there."""
        names = channel_names(splits)
        check_names("config.task", [name for name in (self.fixed, self.moving) if name] or names, names)
        spacing = splits["train"][0].record.spacing_mm[-self.ndim:]
        return {"contrasts": names, "spacing_mm": tuple(float(s) for s in spacing) or (1.0,) * self.ndim}

    def example(self, key: Key, batch: Batch) -> Example:
        """Moving and fixed image, stacked; the target is `{"fixed": image, "displacement": the true one}`."""
        image, mask = self.clean(batch)
        fixed, still = (self._contrast(image, name) for name in (self.fixed, self.moving))
        velocity = self.per_sample(key, batch, self._velocity, fixed)
        moving = warp(still, integrate(-velocity))
        return Example(jnp.concatenate([moving, fixed], -1), {"fixed": fixed, "displacement": integrate(velocity)}, mask)

    def _contrast(self, image: Array, name: str) -> Array:
        at = self.contrasts.index(name) if name else 0
        return image[..., at:at + 1]

    def _velocity(self, key: Key, image: Array) -> Array:
        """A random turn, shift and bend of an image `(*space, 1)`, as a stationary velocity `(*space, n)` in voxels."""
        n, space = self.ndim, image.shape[:-1]
        turn_key, shift_key, bend_key = jax.random.split(key, 3)
        angles = jnp.deg2rad(self.turn) * jax.random.uniform(turn_key, (n, n), minval=-1)
        generator = jnp.triu(angles, 1) - jnp.triu(angles, 1).T
        grid = jnp.stack(jnp.meshgrid(*(jnp.arange(s) - (s - 1) / 2 for s in space), indexing="ij"), -1)
        shift = self.shift * jax.random.uniform(shift_key, (n,), minval=-1)
        coarse = tuple(-(-s // self.period) + 1 for s in space)
        bend = jax.image.resize(self.bend * jax.random.normal(bend_key, (*coarse, n)), (*space, n), "cubic")
        return grid @ generator.T + shift.reshape((1,) * n + (n,)) + bend

    def losses(self, pred: Array, example: Example) -> dict[str, Array]:
        """Between the warped and the fixed image "mse" or "ncc" (1 - squared local correlation: contrasts may differ);
        "smooth", the displacement's mean squared differences; "supervised", its mean distance from the true one in voxels.
        """
        fixed, true = example.target["fixed"], example.target["displacement"]
        warped = warp(example.input[..., :1], pred)
        rough = [jnp.square(jnp.diff(pred, axis=axis)).mean() for axis in range(1, self.ndim + 1)]
        return {"mse": jnp.square(warped - fixed).mean(), "ncc": 1 - local_correlation(warped, fixed).mean(),
                "smooth": sum(rough) / self.ndim,
                "supervised": (jnp.sqrt(jnp.square(pred - true).sum(-1, keepdims=True) + 1e-6) * example.mask).mean()}

    def metrics(self, pred: Array, example: Example) -> dict[str, Array]:
        """Per sample: the mean distance from the true displacement in mm, on tissue (a tenth of the range or more); the
        part of voxels in % where space folds; the local correlation of the warped and the fixed image.
        """
        fixed, true = example.target["fixed"], example.target["displacement"]
        axes = tuple(range(1, self.ndim + 1))
        tissue = (example.mask & (fixed > 0.1))[..., 0]
        spacing = jnp.array(self.spacing_mm or (1.0,) * self.ndim).reshape((1,) * (self.ndim + 1) + (self.ndim,))
        distance = jnp.sqrt(jnp.square((pred - true) * spacing).sum(-1))
        warped = warp(example.input[..., :1], pred)
        return {"registration_error": (distance * tissue).sum(axes) / jnp.maximum(tissue.sum(axes), 1),
                "folds": 100 * (jacobian_determinant(pred) <= 0).mean(axes),
                "correlation": local_correlation(warped, fixed).mean(tuple(range(1, self.ndim + 2)))}

    def answers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """No displacement, and optical flow: Lucas-Kanade, and in 2-D TV-L1."""
        moving, fixed = np.asarray(x[..., 0], np.float32), np.asarray(x[..., 1], np.float32)
        flows = {"ilk": classical.ilk} | ({"tvl1": classical.tvl1} if self.ndim == 2 else {})
        still = np.zeros((*fixed.shape, self.ndim), np.float32)
        return {"input": still} | {name: fn(fixed, moving) for name, fn in flows.items()}

    def pictures(self, example: Example, answers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The moving image, as every displacement warps it, and the fixed one."""
        low, high = self.data_range
        moving = jnp.asarray(example.input)[None, ..., :1]
        images = {row: np.asarray(warp(moving, jnp.asarray(u)[None])[0]) for row, u in answers.items()}
        return {row: image * (high - low) + low for row, image in {**images, "truth": example.target["fixed"]}.items()}


def local_correlation(one: Array, other: Array) -> Array:
    """The squared correlation of two images `(B, *space, 1)` in windows of 9 voxels (Avants et al., 2008), 0 … 1."""
    def mean(x: Array) -> Array:
        for axis in range(1, x.ndim - 1):
            size = min(WINDOW, x.shape[axis])
            x = correlate_axis(x, jnp.full((size,), 1 / size), axis)
        return x

    m1, m2 = mean(one), mean(other)
    covariance = mean(one * other) - m1 * m2
    return jnp.square(covariance) / ((mean(one**2) - m1**2) * (mean(other**2) - m2**2) + 1e-5)
