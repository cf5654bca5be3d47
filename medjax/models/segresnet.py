"""SegResNet (Myronenko, 2019): residual blocks with the normalisation in front, deeper on the way down than up."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, Norm, activation, both_sides, check_ndim, check_same_grid, pad_to_multiple
from medjax.ops.resample import upsample_linear
from medjax.types import Array, Context


class SegResNet(nn.Module):
    """`len(down)` levels of `down` residual blocks, each level half as fine and twice as wide; one block each on the way up.

    Shortcuts between the two ways are added. Any image size: it is padded to a multiple of 2^(levels - 1) inside.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 8
    down: Sequence[int] = (1, 2, 2, 4)
    norm: str = "group"
    act: str = "relu"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("segresnet", self.scale)
        h, cut = pad_to_multiple(x, 2 ** (len(self.down) - 1))
        h = Conv(self.width, bias=False, dtype=self.dtype)(h)
        skips: list[Array] = []
        for level, blocks in enumerate(self.down):
            if level:
                skips.append(h)
                h = Conv(self.width * 2**level, 3, 2, both_sides(3, self.ndim), bias=False, dtype=self.dtype)(h)
            for _ in range(blocks):
                h = self._block(h, train)
        for level in reversed(range(len(self.down) - 1)):
            h = upsample_linear(Conv(self.width * 2**level, kernel=1, bias=False, dtype=self.dtype)(h))
            h = self._block(h + skips.pop(), train)
        out = Conv(self.channels, kernel=1, scale=0.1, dtype=self.dtype)(self._ready(h, train))
        return out[cut].astype(x.dtype)

    def _block(self, x: Array, train: bool) -> Array:
        h = x
        for _ in range(2):
            h = Conv(x.shape[-1], bias=False, dtype=self.dtype)(self._ready(h, train))
        return x + h

    def _ready(self, h: Array, train: bool) -> Array:
        return activation(self.act)(Norm(self.norm, self.dtype)(h, train))
