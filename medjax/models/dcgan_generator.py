"""DCGAN generator (Radford et al., 2016): an image from a vector of noise."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from medjax.models.blocks import ConvTranspose, Norm, activation
from medjax.types import Array, Context, Measurement, UserError


class DCGANGenerator(nn.Module):
    """Noise `(B, N)` to images `(B, *space, C)` in unit range, through `depth` transposed convolutions of stride 2.

    `context` `(B, *space, 0)` holds no values: its shape is the grid to fill, each size a multiple of 2^depth. The layers
    have `width` channels at the finest and twice as many at each coarser one; the last is a tanh, scaled to 0 … 1. Without
    `bias` the layers are the original's.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 64
    depth: int = 4
    norm: str = "batch"
    bias: bool = True
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        if x.ndim != 2 or isinstance(context, Measurement | None) or context.ndim != self.ndim + 2:
            raise UserError("config.model.name", "dcgan_generator makes images from vectors of noise; use it with "
                            "task=synthesis")
        space = context.shape[1:-1]
        if any(size % 2**self.depth for size in space):
            raise UserError("config.model.depth", f"{self.depth} doublings don't reach images of "
                            f"{'x'.join(map(str, space))}; their sizes have to be multiples of {2**self.depth}")
        small = tuple(size // 2**self.depth for size in space)
        width = self.width * 2 ** (self.depth - 1)
        h = nn.Dense(width * math.prod(small), self.bias, dtype=self.dtype)(x).reshape(-1, *small, width)
        h = activation("relu")(Norm(self.norm, self.dtype)(h, train))
        for level in reversed(range(self.depth - 1)):
            h = ConvTranspose(self.width * 2**level, kernel=4, stride=2, bias=self.bias, dtype=self.dtype)(h)
            h = activation("relu")(Norm(self.norm, self.dtype)(h, train))
        h = ConvTranspose(self.channels, kernel=4, stride=2, bias=self.bias, dtype=self.dtype)(h)
        return 0.5 + 0.5 * nn.tanh(h.astype("float32"))
