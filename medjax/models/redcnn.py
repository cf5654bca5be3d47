"""RED-CNN (Chen et al., 2017): residual encoder-decoder for low-dose CT."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, ConvTranspose, check_ndim, check_same_grid
from medjax.types import Array, Context


class REDCNN(nn.Module):
    """`depth` convolutions, as many transposed ones, and a shortcut around every second pair and the whole.

    The published network pads nothing and so shrinks and grows; with SAME padding it takes any size. Its last layer starts
    at 0, so that training starts at the input.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 96
    depth: int = 5
    kernel: int = 5
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("redcnn", self.scale)
        shortcuts = []
        h = x.astype(self.dtype)
        for i in range(self.depth):
            if i % 2 == 0:
                shortcuts.append(h)
            h = Conv(self.width, self.kernel, act="relu", dtype=self.dtype)(h)
        for i in reversed(range(1, self.depth)):
            h = ConvTranspose(self.width, self.kernel, dtype=self.dtype)(h)
            if i % 2 == 0:
                h += shortcuts.pop()
            h = nn.relu(h)
        # Of stride 1, a convolution is a transposed one.
        h = Conv(self.channels, self.kernel, scale=0.0, dtype=self.dtype)(h)
        return (h + shortcuts.pop()[..., : self.channels]).astype(x.dtype)
