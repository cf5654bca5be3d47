"""A plain convolutional network: SRCNN and DnCNN are settings of it."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import Conv, ConvNormAct, check_ndim, check_same_grid
from medjax.types import Array, Context, UserError, check_choice


class CNN(nn.Module):
    """`len(features)` convolutions with activation, then one to the output; `residual` predicts what to add to the input.

    `kernels` has one size per layer, the output's included. Without `bias` the first and the last convolution have none
    either. `padding` says what lies beyond the edge: "zeros", or with "circular" the opposite edge.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    features: Sequence[int] = (64, 64, 64, 64)
    kernels: Sequence[int] = (3, 3, 3, 3, 3)
    norm: str = "none"
    act: str = "relu"
    residual: bool = True
    bias: bool = True
    padding: str = "zeros"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("cnn", self.scale)
        if len(self.kernels) != len(self.features) + 1:
            raise UserError("config.model.kernels", f"{len(self.kernels)} sizes for {len(self.features)} features; give one "
                            "more, for the output")
        check_choice("config.model.padding", self.padding, ("zeros", "circular"))
        h, padding = x, "SAME" if self.padding == "zeros" else "VALID"
        for i, (width, kernel) in enumerate(zip(self.features, self.kernels[:-1], strict=True)):
            norm = self.norm if i else "none"
            h = self._padded(h, kernel)
            if norm == "none" and not self.bias:
                h = Conv(width, kernel, padding=padding, bias=False, act=self.act, dtype=self.dtype)(h)
            else:
                h = ConvNormAct(width, kernel, norm=norm, act=self.act, dtype=self.dtype, padding=padding)(h, train)
        out = Conv(self.channels, self.kernels[-1], padding=padding, bias=self.bias, scale=0.1,
                   dtype=self.dtype)(self._padded(h, self.kernels[-1])).astype(x.dtype)
        return x[..., : self.channels] + out if self.residual else out

    def _padded(self, x: Array, kernel: int) -> Array:
        """The image with the opposite edges around it, where the padding is circular."""
        if self.padding == "zeros":
            return x
        around = ((kernel - 1) // 2, kernel // 2)
        return jnp.pad(x, [(0, 0), *[around] * self.ndim, (0, 0)], mode="wrap")
