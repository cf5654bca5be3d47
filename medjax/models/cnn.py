"""A plain convolutional network: SRCNN and DnCNN are settings of it."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, ConvNormAct, check_ndim, check_same_grid
from medjax.types import Array, Context, UserError


class CNN(nn.Module):
    """`len(features)` convolutions with activation, then one to the output; `residual` predicts what to add to the input.

    `kernels` has one size per layer, the output's included.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    features: Sequence[int] = (64, 64, 64, 64)
    kernels: Sequence[int] = (3, 3, 3, 3, 3)
    norm: str = "none"
    act: str = "relu"
    residual: bool = True
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("cnn", self.scale)
        if len(self.kernels) != len(self.features) + 1:
            raise UserError("config.model.kernels", f"{len(self.kernels)} sizes for {len(self.features)} features; give one "
                            "more, for the output")
        h = x
        for i, (width, kernel) in enumerate(zip(self.features, self.kernels[:-1], strict=True)):
            h = ConvNormAct(width, kernel, norm=self.norm if i else "none", act=self.act, dtype=self.dtype)(h, train)
        out = Conv(self.channels, self.kernels[-1], scale=0.1, dtype=self.dtype)(h).astype(x.dtype)
        return x[..., : self.channels] + out if self.residual else out
