"""FCN-8s on the convolutions of VGG-16, as published (Long et al., 2015); `fcn` is a smaller one of any depth."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, ConvNormAct, ConvTranspose, check_ndim, check_same_grid, pad_to_multiple
from medjax.models.vgg import STAGES
from medjax.ops.resample import max_pool
from medjax.types import Array, Context


class FCN8s(nn.Module):
    """Logits `(B, *space, channels)`: those of the coarsest grid, and of the 4th and the 3rd pooling added on the way up.

    VGG-16 of `width`, whose first two dense layers, of `dense` channels, are convolutions of 7 and 1 voxels. Images are
    padded to a multiple of 32, where the original pads 100 pixels and cuts more off.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 64
    dense: int = 4096
    dropout: float = 0.5
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("fcn8s", self.scale)
        h, cut = pad_to_multiple(x, 32)
        pooled: list[Array] = []
        for count, factor in zip(STAGES[16], (1, 2, 4, 8, 8), strict=True):
            for _ in range(count):
                h = ConvNormAct(self.width * factor, norm="none", dtype=self.dtype)(h, train)
            h = max_pool(h)
            pooled.append(h)
        for kernel in (7, 1):
            h = ConvNormAct(self.dense, kernel, norm="none", dtype=self.dtype)(h, train)
            h = nn.Dropout(self.dropout, deterministic=not train)(h)
        out = self._judge(h)
        for finer in (pooled[3], pooled[2]):
            out = ConvTranspose(self.channels, kernel=4, stride=2, bias=False, dtype=self.dtype)(out) + self._judge(finer)
        out = ConvTranspose(self.channels, kernel=16, stride=8, bias=False, dtype=self.dtype)(out)
        return out[cut].astype("float32")

    def _judge(self, h: Array) -> Array:
        return Conv(self.channels, kernel=1, scale=0.1, dtype=self.dtype)(h)
