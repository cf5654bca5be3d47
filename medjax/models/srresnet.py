"""SRResNet (Ledig et al., 2017): the generator of SRGAN."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, ConvNormAct, Norm, activation, check_ndim
from medjax.ops.resample import doublings, pixel_shuffle
from medjax.types import Array, Context


class SRResNet(nn.Module):
    """`blocks` residual blocks on the input's grid between 9x9 convolutions, then pixel shuffle to the target's.

    The grid is refined by 2 at a time, or by 3. Unlike `edsr` it makes the image itself, not what is missing in the input.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 64
    blocks: int = 16
    norm: str = "batch"
    act: str = "prelu"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        head = h = Conv(self.width, 9, act=self.act, dtype=self.dtype)(x)
        for _ in range(self.blocks):
            r = ConvNormAct(self.width, norm=self.norm, act=self.act, dtype=self.dtype, bias=True)(h, train)
            h = h + Norm(self.norm, self.dtype)(Conv(self.width, scale=0.2, dtype=self.dtype)(r), train)
        h = head + Norm(self.norm, self.dtype)(Conv(self.width, dtype=self.dtype)(h), train)
        for factors in doublings(self.scale):
            h = pixel_shuffle(Conv(self.width * math.prod(factors), dtype=self.dtype)(h), factors)
            h = activation(self.act)(h)
        return Conv(self.channels, 9, scale=1.0, dtype=self.dtype)(h).astype(x.dtype)
