"""The generator of CycleGAN (Zhu et al., 2017; Johnson et al., 2016): residual blocks on a grid four times coarser."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import (
    Conv,
    ConvNormAct,
    ConvTranspose,
    Norm,
    both_sides,
    check_ndim,
    check_same_grid,
    pad_to_multiple,
)
from medjax.types import Array, Context


class CycleGANGenerator(nn.Module):
    """Images in unit range to images in unit range: two strided convolutions, `blocks` residual ones, two transposed ones.

    `width` channels at the finest level; 9 blocks as published for 256 pixels, 6 for 128. Sizes are padded to a multiple
    of 4, from 8 voxels on.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 64
    blocks: int = 9
    norm: str = "instance_plain"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("cyclegan_generator", self.scale)
        h, cut = pad_to_multiple(2 * x - 1, 4)
        h = self._inside(self.width, 7, h, train)
        for width in (2 * self.width, 4 * self.width):
            h = ConvNormAct(width, 3, 2, self.norm, dtype=self.dtype, bias=True, padding=both_sides(3, self.ndim))(h, train)
        for _ in range(self.blocks):
            r = _mirrored(self._inside(4 * self.width, 3, h, train), 1)
            h = h + Norm(self.norm, self.dtype)(Conv(4 * self.width, padding="VALID", dtype=self.dtype)(r), train)
        for width in (2 * self.width, self.width):
            h = ConvTranspose(width, 3, 2, ((1, 0),) * self.ndim, dtype=self.dtype)(h)
            h = nn.relu(Norm(self.norm, self.dtype)(h, train))
        h = Conv(self.channels, kernel=7, padding="VALID", scale=1.0, dtype=self.dtype)(_mirrored(h, 3))
        return (0.5 + 0.5 * nn.tanh(h.astype("float32")))[cut]

    def _inside(self, width: int, kernel: int, x: Array, train: bool) -> Array:
        """A unit that sees the image mirrored beyond its edge."""
        unit = ConvNormAct(width, kernel, norm=self.norm, dtype=self.dtype, bias=True, padding="VALID")
        return unit(_mirrored(x, kernel // 2), train)


def _mirrored(x: Array, width: int) -> Array:
    return jnp.pad(x, [(0, 0), *[(width, width)] * (x.ndim - 2), (0, 0)], mode="reflect")
