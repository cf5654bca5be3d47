"""VoxelMorph (Balakrishnan et al., 2019; Dalca et al., 2019): a displacement field from two images."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import Conv, check_ndim, check_same_grid, pad_to_multiple
from medjax.models.unet import UNet
from medjax.ops.displacement import integrate
from medjax.ops.resample import upsample
from medjax.types import Array, Context, UserError

# Channels over `width`: before each refinement of the grid, on half of it, and on all of it.
ENCODER = (1.0, 2.0, 2.0, 2.0)
DECODERS: dict[int, tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]] = {
    1: ((2, 2, 2), (2, 0.5), (0.5,)), 2: ((2, 2, 2), (2, 2), (1, 1))}


class VoxelMorph(nn.Module):
    """From the moving and the fixed image, stacked as channels, the displacement `(B, *space, ndim)` in voxels.

    A U-Net finds a velocity, which `steps` of scaling and squaring turn into a displacement that does not fold (a
    diffeomorphism); with `steps=0` it is the displacement itself. `published` 1 or 2 takes the network of VoxelMorph-1 or
    -2 instead, which has strided convolutions and no normalisation (`width` 16).
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 16
    depth: int = 4
    norm: str = "group"
    steps: int = 6
    published: int = 0
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("voxelmorph", self.scale)
        if self.channels != self.ndim:
            raise UserError("config.model.name", f"voxelmorph makes displacements along {self.ndim} axes; "
                            "use it with task=register")
        if self.published not in (0, *DECODERS):
            raise UserError("config.model.published", f"no VoxelMorph-{self.published}; there is 1, 2, and 0 for a U-Net")
        if self.published:
            velocity = self._strided(x)
        else:
            velocity = UNet(self.ndim, self.ndim, self.scale, self.width, self.depth, self.norm, residual=False,
                            dtype=self.dtype)(x, train=train)
        return integrate(velocity, self.steps) if self.steps else velocity

    def _strided(self, x: Array) -> Array:
        """The velocity by the published networks."""
        ways = DECODERS[self.published]
        h, cut = pad_to_multiple(x, 2 ** len(ENCODER))
        skips = [h]
        for factor in ENCODER:
            h = self._conv(factor, h, stride=2)
            skips.append(h)
        skips.pop()
        for factor in ways[0]:
            h = jnp.concatenate([upsample(self._conv(factor, h)), skips.pop()], -1)
        for factor in ways[1]:
            h = self._conv(factor, h)
        h = jnp.concatenate([upsample(h), skips.pop()], -1)
        for factor in ways[2]:
            h = self._conv(factor, h)
        return Conv(self.ndim, scale=1e-6, dtype=self.dtype)(h)[cut].astype(x.dtype)

    def _conv(self, factor: float, x: Array, stride: int = 1) -> Array:
        return Conv(int(self.width * factor), 3, stride, act="leaky_relu", dtype=self.dtype)(x)
