"""A residual network that predicts the noise, of grouped convolutions (ldct-benchmark, Eulig et al., 2024)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, ConvNormAct, Norm, activation, check_ndim, check_same_grid
from medjax.types import Array, Context


class DenoisingResNet(nn.Module):
    """`blocks` of a 3x3, a 3x3 in `groups` and a 1x1 convolution, between a 9x9 and a 3x3 one; taken off the input.

    Its last layer starts at 0, so that training starts at the input.
    The published network has `width=128`, `blocks=10`, `norm="batch"`.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 32
    blocks: int = 4
    groups: int = 8
    norm: str = "batch"
    act: str = "relu"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("denoising_resnet", self.scale)
        h = Conv(self.width, 9, dtype=self.dtype)(x)
        for _ in range(self.blocks):
            r = ConvNormAct(self.width, norm=self.norm, act=self.act, dtype=self.dtype, bias=True)(h, train)
            r = Conv(self.width, groups=self.groups, dtype=self.dtype)(r)
            r = activation(self.act)(Norm(self.norm, self.dtype)(r, train))
            h = h + Conv(self.width, kernel=1, dtype=self.dtype)(r)
        return x[..., : self.channels] - Conv(self.channels, scale=0.0, dtype=self.dtype)(h).astype(x.dtype)
