"""Attention U-Net (Oktay et al., 2018): gates on the shortcuts let through what the coarser level asks for."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import Conv, ConvNormAct, check_ndim, check_same_grid
from medjax.models.classifier import even
from medjax.ops.resample import max_pool, upsample
from medjax.types import Array, Context


class AttentionUNet(nn.Module):
    """`depth` levels, `width` channels at the finest, twice as many at each coarser one. Any image size.

    `residual` predicts what to add to the input, for tasks that make images.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 32
    depth: int = 4
    norm: str = "group"
    act: str = "relu"
    residual: bool = False
    dropout: float = 0.0
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("attention_unet", self.scale)
        skips, h = [], x.astype(self.dtype)
        for level in range(self.depth):
            if level:
                skips.append(h)
                h = max_pool(even(h))
            h = self._block(h, level, train)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        for level in reversed(range(self.depth - 1)):
            skip = skips.pop()
            cut = (slice(None), *(slice(0, n) for n in skip.shape[1:-1]))
            # A 1x1 convolution before the repeat is 2^ndim times less work than after it, and the same function.
            coarse = upsample(Conv(self.width * 2**level, kernel=1, dtype=self.dtype)(h))[cut]
            h = self._block(jnp.concatenate([skip * self._gate(skip, coarse), coarse], -1), level, train)
        out = Conv(self.channels, kernel=1, scale=0.1, dtype=self.dtype)(h).astype(x.dtype)
        return x[..., : self.channels] + out if self.residual else out

    def _gate(self, skip: Array, coarse: Array) -> Array:
        """How much of each voxel passes, 0 … 1, `(B, *space, 1)`."""
        width = max(1, skip.shape[-1] // 2)
        asked = nn.relu(Conv(width, kernel=1, dtype=self.dtype)(skip) + Conv(width, kernel=1, dtype=self.dtype)(coarse))
        return nn.sigmoid(Conv(1, kernel=1, scale=1.0, dtype=self.dtype)(asked))

    def _block(self, x: Array, level: int, train: bool) -> Array:
        for _ in range(2):
            x = ConvNormAct(self.width * 2**level, norm=self.norm, act=self.act, dtype=self.dtype)(x, train)
        return x
