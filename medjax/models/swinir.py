"""SwinIR (Liang et al., 2021): attention within windows, which are shifted by half their size in every other block."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from medjax.models.blocks import Conv, Norm, check_ndim, pad_to_multiple
from medjax.ops.resample import pixel_shuffle, upsample
from medjax.types import Array, Context, UserError

ACROSS = -100.0  # what attention between voxels that a shift has brought side by side is lowered by


class SwinIR(nn.Module):
    """Groups of `depths` transformer blocks, with a convolution each, on the input's grid; then pixel shuffle by `scale`.

    `width` channels in `heads`, windows of `window` voxels along every axis, hidden layers `expansion` times as wide. The
    output is added to the input, repeated to the fine grid. As published for denoising: width 180, six depths of 6, heads 6,
    window 8, expansion 2. `residual=False` is its form for enlarging with few weights. `mean` of the channels is
    subtracted first. There is no stochastic depth.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 32
    depths: Sequence[int] = (2, 2)
    heads: int = 4
    window: int = 8
    expansion: float = 2.0
    residual: bool = True
    mean: Sequence[float] = ()
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        if self.width % self.heads:
            raise UserError("config.model.heads", f"{self.heads} do not divide the {self.width} channels")
        if self.mean and len(self.mean) != x.shape[-1]:
            raise UserError("config.model.mean", f"{len(self.mean)} numbers for {x.shape[-1]} channels; give one for each")
        mean = jnp.array(self.mean or (0.0,), x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
        padded, cut = pad_to_multiple(x - mean, self.window)
        head = Conv(self.width, scale=1.0, dtype=self.dtype)(padded)
        h = Norm("layer", self.dtype)(head)
        for depth in self.depths:
            inner = h
            for i in range(depth):
                inner = SwinBlock(self.heads, self.window, self.window // 2 * (i % 2), self.expansion, self.dtype)(inner)
            h = h + Conv(self.width, scale=1.0, dtype=self.dtype)(inner)
        h = Conv(self.width, scale=1.0, dtype=self.dtype)(Norm("layer", self.dtype)(h)) + head
        out = Conv(self.channels * math.prod(self.scale), scale=0.1, dtype=self.dtype)(h)[cut].astype(x.dtype)
        out = pixel_shuffle(out, self.scale) if math.prod(self.scale) > 1 else out
        return upsample(x[..., : self.channels], self.scale) + out if self.residual else out + mean


class SwinBlock(nn.Module):
    """Attention within windows of an image `(B, *space, C)` moved by `shift` voxels, and two dense layers."""

    heads: int
    window: int
    shift: int
    expansion: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        axes, width, space = tuple(range(1, x.ndim - 1)), x.shape[-1], x.shape[1:-1]
        h = Norm("layer", self.dtype)(x)
        h = jnp.roll(h, (-self.shift,) * len(axes), axes) if self.shift else h
        across = _across(space, self.window, self.shift) if self.shift else None
        h = WindowAttention(self.heads, self.window, self.dtype)(_windows(h, self.window), across)
        h = _whole(h, space, self.window)
        x = x + (jnp.roll(h, (self.shift,) * len(axes), axes) if self.shift else h)
        h = Conv(int(self.expansion * width), 1, scale=1.0, dtype=self.dtype)(Norm("layer", self.dtype)(x))
        return x + Conv(width, 1, scale=1.0, dtype=self.dtype)(nn.gelu(h, approximate=False))


class WindowAttention(nn.Module):
    """Attention between the voxels of each window `(B, windows, voxels, C)`, with a learned bias for each offset."""

    heads: int
    window: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, across: Array | None) -> Array:
        width, n = x.shape[-1], round(math.log(x.shape[2], self.window))
        qkv = Conv(3 * width, 1, scale=1.0, dtype=self.dtype)(x)
        q, k, v = (part.reshape(*x.shape[:3], self.heads, -1) for part in jnp.split(qkv, 3, -1))
        scores = jnp.einsum("bwihc,bwjhc->bwhij", q * (width // self.heads) ** -0.5, k).astype(jnp.float32)
        offsets = _offsets(self.window, n)
        table = self.param("offsets", nn.initializers.truncated_normal(0.02), ((2 * self.window - 1) ** n, self.heads))
        scores = scores + table[offsets].transpose(2, 0, 1)[None, None]
        if across is not None:
            scores = scores + ACROSS * across[None, :, None]
        made = jnp.einsum("bwhij,bwjhc->bwihc", jax.nn.softmax(scores, -1).astype(self.dtype), v)
        return Conv(width, 1, scale=1.0, dtype=self.dtype)(made.reshape(x.shape))


def _windows(x: Array, window: int) -> Array:
    """An image `(B, *space, C)` whose sizes are multiples of `window`, as `(B, windows, voxels, C)`."""
    n = x.ndim - 2
    pairs = [size for axis in x.shape[1:-1] for size in (axis // window, window)]
    order = [0, *range(1, 1 + 2 * n, 2), *range(2, 2 + 2 * n, 2), 1 + 2 * n]
    return x.reshape(x.shape[0], *pairs, x.shape[-1]).transpose(order).reshape(x.shape[0], -1, window**n, x.shape[-1])


def _whole(x: Array, space: Sequence[int], window: int) -> Array:
    """The inverse of `_windows`."""
    n = len(space)
    x = x.reshape(x.shape[0], *(size // window for size in space), *(window,) * n, x.shape[-1])
    order = [0, *(axis for i in range(n) for axis in (1 + i, 1 + n + i)), 1 + 2 * n]
    return x.transpose(order).reshape(x.shape[0], *space, x.shape[-1])


def _offsets(window: int, n: int) -> np.ndarray:
    """A number for the offset between each two voxels of a window, `(voxels, voxels)`."""
    at = np.array(list(itertools.product(range(window), repeat=n)))
    between = at[:, None] - at[None] + window - 1
    return between @ (2 * window - 1) ** np.arange(n)[::-1]


def _across(space: Sequence[int], window: int, shift: int) -> Array:
    """Whether two voxels of a window come from opposite ends of the image, `(windows, voxels, voxels)`."""
    region = jnp.zeros((1, *space, 1), int)
    for axis, size in enumerate(space):
        at = jnp.arange(size)
        end = (at >= size - window).astype(int) + (at >= size - shift)
        region = 3 * region + end.reshape([-1 if i == axis + 1 else 1 for i in range(region.ndim)])
    labels = _windows(region, window)[0, ..., 0]
    return labels[:, :, None] != labels[:, None, :]
