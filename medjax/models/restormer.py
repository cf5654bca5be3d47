"""Restormer (Zamir et al., 2022): a U-Net of transformer blocks whose attention is between channels, not voxels."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.blocks import Conv, Norm, check_ndim, check_same_grid, pad_to_multiple
from medjax.ops.resample import pixel_shuffle, pixel_unshuffle
from medjax.types import Array, Context, UserError, check_choice

EXPANSION = 2.66  # hidden channels of the feed-forward part over those of the block, as published


class Restormer(nn.Module):
    """`blocks` transformer blocks on each level from the finest, as many on the way back, and `refinement` at the end.

    `width` channels at the finest level, twice as many at each coarser one, in `heads` for attention. Any image size: it is
    padded to a multiple of 2^(levels - 1). The output is added to the input. As published: width 48, blocks (4, 6, 6, 8),
    heads (1, 2, 4, 8), refinement 4, `norm` "layer", or "layer_scale" for Gaussian noise of any strength. Attention reads
    the whole image, so a tile's result depends a little on its size.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 16
    blocks: Sequence[int] = (1, 2, 2)
    heads: Sequence[int] = (1, 2, 4)
    refinement: int = 1
    norm: str = "layer"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("restormer", self.scale)
        self._check()
        conv = partial(Conv, bias=False, scale=1.0, dtype=self.dtype)
        levels = list(zip(self.blocks, self.heads, strict=True))
        h, cut = pad_to_multiple(x, 2 ** (len(levels) - 1))
        h = conv(self.width)(h)
        skips = []
        for level, (blocks, heads) in enumerate(levels):
            if level:
                skips.append(h)
                h = self._coarser(conv(2 * h.shape[-1] // 2**self.ndim)(h))
            h = self._blocks(h, blocks, heads)
        for level, (blocks, heads) in reversed(list(enumerate(levels[:-1]))):
            h = pixel_shuffle(conv(h.shape[-1] // 2 * 2**self.ndim)(h))
            h = jnp.concatenate([h, skips.pop()], -1)
            if level:  # the finest level keeps both halves
                h = conv(h.shape[-1] // 2, 1)(h)
            h = self._blocks(h, blocks, heads)
        h = self._blocks(h, self.refinement, self.heads[0])
        out = Conv(self.channels, bias=False, scale=0.1, dtype=self.dtype)(h)[cut].astype(x.dtype)
        return x[..., : self.channels] + out

    def _check(self) -> None:
        check_choice("config.model.norm", self.norm, ("layer", "layer_scale"))
        if len(self.heads) != len(self.blocks):
            raise UserError("config.model.heads", f"{len(self.heads)} levels and {len(self.blocks)} of blocks; make them "
                            "equal")
        for level, heads in enumerate(self.heads):
            if self.width * 2**level % heads:
                raise UserError("config.model.heads", f"{heads} do not divide the {self.width * 2**level} channels of level "
                                f"{level}")
        if self.width % 2 ** (self.ndim - 1):
            raise UserError("config.model.width", f"{self.width} is no multiple of {2 ** (self.ndim - 1)}")

    def _coarser(self, x: Array) -> Array:
        """Space to channels; all values of one channel lie side by side, as in the original, so that its weights fit."""
        h = pixel_unshuffle(x)
        return h.reshape(*h.shape[:-1], 2**self.ndim, x.shape[-1]).swapaxes(-1, -2).reshape(h.shape)

    def _blocks(self, x: Array, count: int, heads: int) -> Array:
        for _ in range(count):
            x = x + ChannelAttention(heads, self.dtype)(Norm(self.norm, self.dtype)(x))
            x = x + GatedFeedForward(self.dtype)(Norm(self.norm, self.dtype)(x))
        return x


class ChannelAttention(nn.Module):
    """Attention of every channel to the others of its head, by their correlation over the image."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, *space, width = x.shape
        both = partial(Conv, bias=False, scale=1.0, dtype=self.dtype)
        qkv = both(3 * width, 1)(x)
        qkv = both(3 * width, groups=3 * width)(qkv)
        q, k, v = (part.reshape(batch, -1, self.heads, width // self.heads) for part in jnp.split(qkv, 3, -1))
        sharpness = self.param("temperature", nn.initializers.ones, (self.heads,))
        scores = jnp.einsum("bnhc,bnhd->bhcd", _unit(q), _unit(k)) * sharpness[None, :, None, None]
        weights = jax.nn.softmax(scores, -1).astype(self.dtype)
        made = jnp.einsum("bhcd,bnhd->bnhc", weights, v)
        return both(width, 1)(made.reshape(batch, *space, width))


def _unit(x: Array) -> Array:
    """Each channel `(b, n, heads, c)` divided by its norm over the image, in float32."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    norm = jnp.sqrt(jnp.maximum(jnp.square(x).sum(1, keepdims=True), 1e-24))
    return x / norm


class GatedFeedForward(nn.Module):
    """Two convolutions in parallel, of which one gates the other through GELU."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        hidden = int(EXPANSION * width)
        both = partial(Conv, bias=False, scale=1.0, dtype=self.dtype)
        h = both(2 * hidden, 1)(x)
        one, other = jnp.split(both(2 * hidden, groups=2 * hidden)(h), 2, -1)
        return both(width, 1)(nn.gelu(one, approximate=False) * other)
