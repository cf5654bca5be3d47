"""U-Net (Ronneberger et al., 2015; Çiçek et al., 2016 in 3-D) for restoration and segmentation."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import Conv, ConvNormAct, Norm, activation, check_ndim, check_same_grid
from medjax.ops.resample import max_pool, pixel_shuffle, upsample
from medjax.types import Array, Context, UserError


class UNet(nn.Module):
    """`depth` levels, `width` channels at the finest and twice as many at each coarser one.

    Any image size: it is padded to a multiple of `stride` * 2^(depth - 1) inside, and cut again. `stride` > 1 makes the
    finest level that much coarser than the image: a strided convolution leads there, pixel shuffle (Shi et al., 2016) back.
    `block` is "plain" (two convolutions) or "residual"; `residual` predicts what to add to the input. `out_scale` is the
    variance that the last layer starts with: how large the output of an untrained network is.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 32
    depth: int = 4
    norm: str = "group"
    act: str = "relu"
    block: str = "plain"
    residual: bool = True
    out_scale: float = 0.1
    dropout: float = 0.0
    stride: int = 1
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("unet", self.scale)
        if self.block not in ("plain", "residual"):
            raise UserError("config.model.block", f"no {self.block!r}; there is plain, residual")
        h, cut = _pad(x.astype(self.dtype), self.stride * 2 ** (self.depth - 1))
        if self.stride > 1:
            h = Conv(self.width, kernel=self.stride, stride=self.stride, padding="VALID", dtype=self.dtype)(h)
        skips = []
        for level in range(self.depth):
            if level:
                skips.append(h)
                h = max_pool(h)
            h = self._block(h, level, train)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        for level in reversed(range(self.depth - 1)):
            # A 1x1 convolution before the repeat is 2^ndim times less work than after it, and the same function.
            h = upsample(Conv(self.width * 2**level, kernel=1, dtype=self.dtype)(h))
            h = self._block(jnp.concatenate([skips.pop(), h], -1), level, train)
        out = Conv(self.channels * self.stride**self.ndim, kernel=1, scale=self.out_scale, dtype=self.dtype)(h)
        out = (pixel_shuffle(out, self.stride) if self.stride > 1 else out)[cut].astype(x.dtype)
        return x[..., : self.channels] + out if self.residual else out

    def _block(self, x: Array, level: int, train: bool) -> Array:
        width = self.width * 2**level
        h = ConvNormAct(width, norm=self.norm, act=self.act, dtype=self.dtype)(x, train)
        if self.block == "plain":
            return ConvNormAct(width, norm=self.norm, act=self.act, dtype=self.dtype)(h, train)
        h = Norm(self.norm, self.dtype)(Conv(width, dtype=self.dtype)(h), train)
        return activation(self.act)(h + Conv(width, kernel=1, dtype=self.dtype)(x))


def _pad(x: Array, multiple: int) -> tuple[Array, tuple[slice, ...]]:
    """Edge-pads the spatial axes to a multiple; the slices cut the result back."""
    sizes = x.shape[1:-1]
    pads = [(0, 0), *((0, -size % multiple) for size in sizes), (0, 0)]
    cut = (slice(None), *(slice(0, size) for size in sizes))
    return (jnp.pad(x, pads, mode="edge") if any(hi for _, hi in pads) else x), cut
