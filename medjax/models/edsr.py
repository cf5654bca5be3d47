"""Residual networks for super-resolution and restoration: EDSR (Lim et al., 2017)."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, ConvNormAct, Norm, check_ndim
from medjax.ops.resample import pixel_shuffle, upsample
from medjax.types import Array, Context


class EDSR(nn.Module):
    """Residual blocks on the input's grid, then pixel shuffle by `scale` to the target's.

    The output is added to the input repeated to the fine grid, so that an untrained network already returns an image.
    `norm="batch"` is near to SRResNet, which `srresnet` is.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 64
    blocks: int = 8
    norm: str = "none"
    act: str = "relu"
    block_scale: float = 1.0
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        head = h = Conv(self.width, dtype=self.dtype)(x)
        for _ in range(self.blocks):
            r = ConvNormAct(self.width, norm=self.norm, act=self.act, dtype=self.dtype)(h, train)
            r = Norm(self.norm, self.dtype)(Conv(self.width, scale=0.2, dtype=self.dtype)(r), train)
            h = h + self.block_scale * r
        h = Conv(self.width, dtype=self.dtype)(h) + head
        if math.prod(self.scale) > 1:
            h = pixel_shuffle(Conv(self.width * math.prod(self.scale), dtype=self.dtype)(h), self.scale)
        out = Conv(self.channels, scale=0.1, dtype=self.dtype)(h).astype(x.dtype)
        return upsample(x[..., : self.channels], self.scale) + out
