"""Fully convolutional network (Long et al., 2015): FCN-8s with its three judgements added from coarse to fine."""

from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, ConvNormAct, ConvTranspose, check_ndim, check_same_grid
from medjax.models.classifier import even
from medjax.ops.resample import max_pool
from medjax.types import Array, Context


class FCN(nn.Module):
    """`depth` stages of two convolutions, the grid halved between them; every stage but the first classifies each voxel.

    A coarse judgement is brought to the next finer grid by a transposed convolution and added to that one. `channels`
    are the classes. Any image size.
    """

    ndim: int
    channels: int
    scale: Any
    width: int = 32
    depth: int = 4
    norm: str = "group"
    act: str = "relu"
    dropout: float = 0.0
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("fcn", self.scale)
        stages, h = [], x
        for stage in range(self.depth):
            h = max_pool(even(h)) if stage else h
            for _ in range(2):
                h = ConvNormAct(self.width * 2**stage, norm=self.norm, act=self.act, dtype=self.dtype)(h, train)
            stages.append(h)
        out = self._judge(nn.Dropout(self.dropout, deterministic=not train)(stages.pop()))
        while stages:
            finer = stages.pop()
            out = ConvTranspose(self.channels, kernel=4, stride=2, dtype=self.dtype)(out)
            out = out[(slice(None), *(slice(0, n) for n in finer.shape[1:-1]))]
            out = out + self._judge(finer) if stages else out
        return out.astype("float32")

    def _judge(self, h: Array) -> Array:
        return Conv(self.channels, kernel=1, scale=0.1, dtype=self.dtype)(h)
