"""Residual-in-residual dense blocks: the generator of ESRGAN (Wang et al., 2018)."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import Conv, check_ndim
from medjax.ops.resample import doublings, pixel_shuffle, upsample
from medjax.types import Array, Context, check_choice

SHRINK = 0.2  # residuals are scaled by it, as published: without normalisation this keeps deep stacks stable


class RRDB(nn.Module):
    """`blocks` residual-in-residual dense blocks on the input's grid, then pixel shuffle by `scale` to the target's.

    A block is `dense` dense blocks of five convolutions, of which four add `growth` channels; there is no normalisation.
    The output is added to the input repeated to the fine grid. The original, with 23 blocks, has `up="repeat"`, where the
    grid is refined by repeating and a convolution, 2 at a time, and `residual=False`, where the output is the image.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 64
    growth: int = 32
    blocks: int = 8
    dense: int = 3
    up: str = "shuffle"
    residual: bool = True
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_choice("config.model.up", self.up, ("shuffle", "repeat"))
        head = h = Conv(self.width, dtype=self.dtype)(x)
        for _ in range(self.blocks):
            inner = h
            for _ in range(self.dense):
                inner = inner + SHRINK * self._dense(inner)
            h = h + SHRINK * inner
        h = Conv(self.width, dtype=self.dtype)(h) + head
        if self.up == "repeat":
            for factors in doublings(self.scale):
                h = Conv(self.width, act="leaky_relu", dtype=self.dtype)(upsample(h, factors))
        elif math.prod(self.scale) > 1:
            h = pixel_shuffle(Conv(self.width * math.prod(self.scale), dtype=self.dtype)(h), self.scale)
        h = Conv(self.width, act="leaky_relu", dtype=self.dtype)(h)
        out = Conv(self.channels, scale=0.1, dtype=self.dtype)(h).astype(x.dtype)
        return upsample(x[..., : self.channels], self.scale) + out if self.residual else out

    def _dense(self, x: Array) -> Array:
        for _ in range(4):
            x_new = Conv(self.growth, scale=0.2, act="leaky_relu", dtype=self.dtype)(x)
            x = jnp.concatenate([x, x_new], -1)
        return Conv(self.width, scale=0.2, dtype=self.dtype)(x)
