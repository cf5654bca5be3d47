"""Registration from coarse to fine (LapIRN; Mok & Chung, 2020): each level of a pyramid refines the velocity so far."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import Conv, check_ndim, check_same_grid, pad_to_multiple
from medjax.ops.displacement import integrate, warp
from medjax.ops.resample import mean_pool, upsample, upsample_linear
from medjax.types import Array, Context, UserError


class LapIRN(nn.Module):
    """From the moving and the fixed image, stacked as channels, the displacement `(B, *space, ndim)` in voxels.

    On each of `levels` grids, the coarsest first, a small network sees the moving image warped by the velocity so far, the
    fixed image, that velocity and the force of demons (Thirion, 1998) between the two, and adds to the velocity, `passes`
    times with the same weights. The displacement at time 1, by `steps` of scaling and squaring, does not fold (it is a
    diffeomorphism). The original has no force, one pass, and networks that see the features of the level below.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 16
    levels: int = 4
    passes: int = 2
    blocks: int = 2
    steps: int = 5
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("lapirn", self.scale)
        if self.channels != self.ndim:
            raise UserError("config.model.name", f"lapirn makes displacements along {self.ndim} axes; use it with "
                            "task=register")
        padded, cut = pad_to_multiple(x, 2**self.levels)
        pyramid = [padded]
        for _ in range(self.levels - 1):
            pyramid.append(mean_pool(pyramid[-1]))
        velocity = jnp.zeros((*pyramid[-1].shape[:-1], self.ndim), x.dtype)
        for level, images in enumerate(reversed(pyramid)):
            if level:
                velocity = 2 * upsample_linear(velocity)
            refine = Refinement(self.ndim, self.width, self.blocks, self.dtype)
            for _ in range(self.passes):
                moved = warp(images[..., :1], integrate(velocity, self.steps))
                seen = [moved, images[..., 1:], velocity, force(moved, images[..., 1:2])]
                velocity = velocity + refine(jnp.concatenate(seen, -1))
        return integrate(velocity, self.steps)[cut]


def force(moved: Array, fixed: Array) -> Array:
    """Where the difference of two images `(B, *space, 1)` pulls each voxel along their mean gradient: `(B, *space, n)`, in
    voxels, at most half of one (Thirion, 1998; symmetric as Rogelj & Kovačič, 2006).
    """
    difference = fixed - moved
    mean = ((fixed + moved) / 2)[..., 0]
    slopes = jnp.stack([jnp.asarray(jnp.gradient(mean, axis=axis)) for axis in range(1, mean.ndim)], -1)
    return difference * slopes / (jnp.square(slopes).sum(-1, keepdims=True) + jnp.square(difference) + 1e-6)


class Refinement(nn.Module):
    """What to add to a velocity, from images and the velocity `(B, *space, C)`: residual blocks on half the grid."""

    ndim: int
    width: int
    blocks: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fine = Conv(self.width, act="leaky_relu", dtype=self.dtype)(x)
        h = Conv(2 * self.width, 3, 2, act="leaky_relu", dtype=self.dtype)(fine)
        for _ in range(self.blocks):
            inner = Conv(2 * self.width, act="leaky_relu", dtype=self.dtype)(h)
            h = h + Conv(2 * self.width, scale=0.1, dtype=self.dtype)(inner)
        h = upsample(Conv(self.width, 1, dtype=self.dtype)(h))
        h = Conv(self.width, act="leaky_relu", dtype=self.dtype)(jnp.concatenate([fine, h], -1))
        return Conv(self.ndim, scale=1e-6, dtype=self.dtype)(h).astype(x.dtype)
