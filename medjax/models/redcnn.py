"""RED-CNN (Chen et al., 2017): residual encoder-decoder for low-dose CT."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, ConvTranspose, check_ndim, check_same_grid
from medjax.types import Array, Context, UserError


class REDCNN(nn.Module):
    """`depth` convolutions, as many transposed ones, and a shortcut around every second pair and the whole.

    Its last layer starts at 0, so that training starts at the input. The published network (`published`) pads nothing, so
    that the image shrinks and grows again, and has a ReLU at the end: no negative values; with padding it takes any size.
    Where images are standardised, published code leaves that ReLU out (`final_relu`).
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 96
    depth: int = 5
    kernel: int = 5
    published: bool = False
    final_relu: bool = True
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("redcnn", self.scale)
        padding, reach = "SAME", self.kernel - 1
        if self.published:
            padding = "VALID"
            if min(x.shape[1:-1]) <= self.depth * reach:
                raise UserError("config.model.published", f"images of {'x'.join(map(str, x.shape[1:-1]))} are smaller than "
                                f"what the network sees; give {self.depth * reach + 1} or more, or set it to False")
        shortcuts = []
        h = x.astype(self.dtype)
        for i in range(self.depth):
            if i % 2 == 0:
                shortcuts.append(h)
            h = Conv(self.width, self.kernel, padding=padding, act="relu", dtype=self.dtype)(h)
        for i in reversed(range(1, self.depth)):
            h = ConvTranspose(self.width, self.kernel, padding=padding, dtype=self.dtype)(h)
            if i % 2 == 0:
                h += shortcuts.pop()
            h = nn.relu(h)
        # Of stride 1, a convolution is a transposed one.
        around = ((reach, reach),) * self.ndim if self.published else "SAME"
        h = Conv(self.channels, self.kernel, padding=around, scale=0.0, dtype=self.dtype)(h)
        h = (h + shortcuts.pop()[..., : self.channels]).astype(x.dtype)
        return nn.relu(h) if self.published and self.final_relu else h
