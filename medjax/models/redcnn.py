"""RED-CNN (Chen et al., 2017): residual encoder-decoder for low-dose CT."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, ConvTranspose, check_ndim, check_same_grid
from medjax.types import Array


class REDCNN(nn.Module):
    """`depth` convolutions, as many transposed ones, and a shortcut around every second pair and the whole.

    The published network pads nothing and so shrinks and grows; with SAME padding it takes any size.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 96
    depth: int = 5
    kernel: int = 5
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Any = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("redcnn", self.scale)
        shortcuts = []
        h = x.astype(self.dtype)
        for i in range(self.depth):
            if i % 2 == 0:
                shortcuts.append(h)
            h = nn.relu(Conv(self.width, self.kernel, dtype=self.dtype)(h))
        for i in reversed(range(self.depth)):
            width = self.width if i else self.channels
            h = ConvTranspose(width, self.kernel, dtype=self.dtype)(h)
            if i % 2 == 0:
                h += shortcuts.pop()[..., :width]
            h = nn.relu(h) if i else h
        return h.astype(x.dtype)
