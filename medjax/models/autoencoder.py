"""Convolutional autoencoder (Hinton & Salakhutdinov, 2006; Masci et al., 2011): images through a narrow code and back."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.blocks import Conv, ConvNormAct, check_ndim, check_same_grid, pad_to_multiple
from medjax.ops.resample import upsample
from medjax.types import Array, Context


class Autoencoder(nn.Module):
    """`depth` halvings of the grid down to a code of `latent` channels, and as many doublings back. Any image size.

    The code has `latent` / 2^(depth * ndim) numbers for a voxel. With `bits` each is one of 2^bits levels (compression:
    latent * bits / 2^(depth * ndim) bits for a voxel); the gradient passes the rounding unchanged (Theis et al., 2017).
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 16
    depth: int = 3
    latent: int = 8
    bits: int = 0
    norm: str = "group"
    act: str = "relu"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("autoencoder", self.scale)
        code = Encoder(self.latent, self.width, self.depth, self.norm, self.act, self.dtype, name="encoder")(x, train)
        if self.bits:
            code = nn.sigmoid(code) * (2**self.bits - 1)
            code = (code + jax.lax.stop_gradient(jnp.round(code) - code)) / 2**self.bits
        return decode(self, code, x, train)


class Encoder(nn.Module):
    """From an image `(B, *space, C)` to a code `(B, *(space / 2^depth), latent)`; sizes are padded up to a multiple."""

    latent: int
    width: int
    depth: int
    norm: str
    act: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        h, _ = pad_to_multiple(x, 2**self.depth)
        h = ConvNormAct(self.width, norm=self.norm, act=self.act, dtype=self.dtype)(h, train)
        for level in range(1, self.depth + 1):
            h = ConvNormAct(self.width * 2**level, 3, 2, self.norm, self.act, self.dtype)(h, train)
        return Conv(self.latent, scale=1.0, dtype=self.dtype)(h).astype(jnp.float32)


class Decoder(nn.Module):
    """From a code to an image of `channels`, on a grid 2^depth finer."""

    channels: int
    width: int
    depth: int
    norm: str
    act: str
    dtype: Any

    @nn.compact
    def __call__(self, code: Array, train: bool = False) -> Array:
        h = ConvNormAct(self.width * 2**self.depth, norm=self.norm, act=self.act, dtype=self.dtype)(code, train)
        for level in reversed(range(self.depth)):
            # A 1x1 convolution before the repeat is 2^ndim times less work than after it, and the same function.
            h = upsample(Conv(self.width * 2**level, kernel=1, dtype=self.dtype)(h))
            h = ConvNormAct(self.width * 2**level, norm=self.norm, act=self.act, dtype=self.dtype)(h, train)
        return Conv(self.channels, scale=1.0, dtype=self.dtype)(h).astype(jnp.float32)


def decode(model: Any, code: Array, x: Array, train: bool) -> Array:
    """The image of a code, cut to the size of `x`; called within the compact method of `model`, whose settings it takes."""
    decoder = Decoder(model.channels, model.width, model.depth, model.norm, model.act, model.dtype, name="decoder")
    image = decoder(code, train)
    return image[(slice(None), *(slice(0, size) for size in x.shape[1:-1]))].astype(x.dtype)
