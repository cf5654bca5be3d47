"""NAFNet (Chen et al., 2022): a U-Net of convolutions without activations, gated by products of channels."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import Conv, Norm, check_ndim, check_same_grid, pad_to_multiple
from medjax.ops.resample import pixel_shuffle
from medjax.types import Array, Context, UserError

EPSILON = 1e-6  # of its normalisations, as published


class NAFNet(nn.Module):
    """`encoder` blocks on each level from the finest, `middle` on the coarsest, `decoder` on the way back; any image size.

    `width` channels at the finest level, twice as many at each coarser one. The output is added to the input. As published
    for denoising photographs: width 32, encoder (2, 2, 4, 8), middle 12, decoder (2, 2, 2, 2). A block weighs its channels
    by their means over the image, so the result for a tile depends a little on the tile's size.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 16
    encoder: Sequence[int] = (1, 1, 2)
    middle: int = 2
    decoder: Sequence[int] = (1, 1, 1)
    dropout: float = 0.0
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("nafnet", self.scale)
        if len(self.encoder) != len(self.decoder):
            raise UserError("config.model.decoder", f"{len(self.decoder)} levels and {len(self.encoder)} in the encoder; "
                            "make them equal")
        h, cut = pad_to_multiple(x, 2 ** len(self.encoder))
        h = Conv(self.width, scale=1.0, dtype=self.dtype)(h)
        skips = []
        for level, blocks in enumerate(self.encoder):
            h = self._blocks(h, blocks, train)
            skips.append(h)
            h = Conv(2 ** (level + 1) * self.width, 2, 2, "VALID", scale=1.0, dtype=self.dtype)(h)
        h = self._blocks(h, self.middle, train)
        for blocks in self.decoder:
            wide = h.shape[-1] // 2 * 2**self.ndim
            h = pixel_shuffle(Conv(wide, 1, bias=False, scale=1.0, dtype=self.dtype)(h)) + skips.pop()
            h = self._blocks(h, blocks, train)
        out = Conv(self.channels, scale=0.1, dtype=self.dtype)(h)[cut].astype(x.dtype)
        return x[..., : self.channels] + out

    def _blocks(self, x: Array, count: int, train: bool) -> Array:
        for _ in range(count):
            x = NAFBlock(self.dropout, self.dtype)(x, train)
        return x


class NAFBlock(nn.Module):
    """Two residual branches, each weighed by a learned scale per channel that begins at 0."""

    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        width = x.shape[-1]
        h = self._conv(2 * width, Norm("layer", self.dtype, EPSILON)(x))
        h = gate(Conv(2 * width, scale=1.0, groups=2 * width, dtype=self.dtype)(h))
        h = h * self._conv(width, h.mean(tuple(range(1, x.ndim - 1)), keepdims=True))
        x = self._added(x, self._conv(width, h), "first", train)
        h = gate(self._conv(2 * width, Norm("layer", self.dtype, EPSILON)(x)))
        return self._added(x, self._conv(width, h), "second", train)

    def _conv(self, features: int, x: Array) -> Array:
        return Conv(features, 1, scale=1.0, dtype=self.dtype)(x)

    def _added(self, x: Array, branch: Array, name: str, train: bool) -> Array:
        scale, row = self.param(name, nn.initializers.zeros, (x.shape[-1],)), (1,) * (x.ndim - 1) + (-1,)
        return x + nn.Dropout(self.dropout, deterministic=not train)(branch) * scale.astype(self.dtype).reshape(row)


def gate(x: Array) -> Array:
    """One half of the channels times the other."""
    one, other = jnp.split(x, 2, -1)
    return one * other
