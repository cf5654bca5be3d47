"""The generator of pix2pix (Isola et al., 2017): a U-Net of strided convolutions down to one voxel."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import (
    WITHOUT_BIAS,
    Conv,
    ConvTranspose,
    Norm,
    activation,
    check_ndim,
    check_same_grid,
    pad_to_multiple,
)
from medjax.types import Array, Context


class Pix2pixGenerator(nn.Module):
    """Images in unit range to images in unit range, `depth` halvings and as many doublings; 8 are "U-Net-256".

    `width` channels at the finest level, twice as many at each coarser one up to 8 times. Dropout, as in the original, on
    the coarse levels of the way up. Sizes are padded to a multiple of 2^depth.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 64
    depth: int = 8
    norm: str = "batch"
    dropout: float = 0.5
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("pix2pix_generator", self.scale)
        bias = self.norm in WITHOUT_BIAS
        widths = [self.width * min(2**level, 8) for level in range(self.depth)]
        h, cut = pad_to_multiple(2 * x - 1, 2**self.depth)
        skips: list[Array] = []
        for level, width in enumerate(widths):
            if level:
                skips.append(h)
                h = activation("leaky_relu")(h)
            h = Conv(width, kernel=4, stride=2, bias=bias, dtype=self.dtype)(h)
            h = Norm(self.norm if 0 < level < self.depth - 1 else "none", self.dtype)(h, train)
        for level in reversed(range(1, self.depth)):
            h = ConvTranspose(widths[level - 1], kernel=4, stride=2, bias=bias, dtype=self.dtype)(nn.relu(h))
            h = Norm(self.norm, self.dtype)(h, train)
            if 4 <= level < self.depth - 1:
                h = nn.Dropout(self.dropout, deterministic=not train)(h)
            h = jnp.concatenate([skips.pop(), h], -1)
        h = ConvTranspose(self.channels, kernel=4, stride=2, dtype=self.dtype)(nn.relu(h))
        return (0.5 + 0.5 * nn.tanh(h.astype("float32")))[cut]
