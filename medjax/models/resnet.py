"""ResNet classifiers (He et al., 2016), 2-D and 3-D; residual networks that make images are `edsr`."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, ConvNormAct, Norm, activation, both_sides, check_ndim
from medjax.models.classifier import Head, even, standardised
from medjax.ops.resample import max_pool
from medjax.types import Array, Context, UserError

# depth -> (blocks of each stage, whether a block is a bottleneck of 1x1, 3x3, 1x1)
DEPTHS = {10: ((1, 1, 1, 1), False), 18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True),
          101: ((3, 4, 23, 3), True), 152: ((3, 8, 36, 3), True)}


class ResNet(nn.Module):
    """One logit per class, `(B, K)`; `depth` 10, 18, 34, 50, 101 or 152 layers, `width` 64 as published.

    `stem` "large" is the published 7x7 with stride 2 and pooling, "small" a 3x3 for images below about 100 pixels. With
    `published` pooling takes 3x3 voxels, not 2x2, and strided layers are padded on both sides: weights of others fit.
    `mean` and `std` of each channel, in unit range, are taken off first (ImageNet's, say).
    """

    ndim: int
    channels: int
    depth: int = 18
    width: int = 16
    stem: str = "large"
    norm: str = "batch"
    act: str = "relu"
    dropout: float = 0.2
    published: bool = False
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        if self.depth not in DEPTHS:
            there_is = ", ".join(map(str, DEPTHS))
            raise UserError("config.model.depth", f"no ResNet of {self.depth} layers; there is {there_is}")
        if self.stem not in ("large", "small"):
            raise UserError("config.model.stem", f"no {self.stem!r}; there is large, small")
        kernel, stride = (7, 2) if self.stem == "large" else (3, 1)
        h = self._unit(self.width, kernel, stride)(standardised(x, self.mean, self.std), train)
        if self.stem == "large" and self.published:
            h = nn.max_pool(h, (3,) * self.ndim, (2,) * self.ndim, both_sides(3, self.ndim))
        elif self.stem == "large":
            h = max_pool(even(h))
        stages, bottleneck = DEPTHS[self.depth]
        for stage, blocks in enumerate(stages):
            for i in range(blocks):
                h = self._block(h, self.width * 2**stage, 2 if stage and not i else 1, bottleneck, train)
        return Head(self.channels, (), self.act, self.dropout, name="head")(h, train)

    def _block(self, x: Array, width: int, stride: int, bottleneck: bool, train: bool) -> Array:
        layers = [(3, stride, width), (3, 1, width)]  # kernel, stride, channels along the residual path
        if bottleneck:
            layers = [(1, 1, width), (3, stride, width), (1, 1, 4 * width)]
        h = x
        for kernel, step, features in layers[:-1]:
            h = self._unit(features, kernel, step)(h, train)
        kernel, step, features = layers[-1]
        h = Norm(self.norm, self.dtype)(Conv(features, kernel, step, bias=False, dtype=self.dtype)(h), train)
        if x.shape != h.shape:
            x = Norm(self.norm, self.dtype)(Conv(features, 1, stride, bias=False, dtype=self.dtype)(x), train)
        return activation(self.act)(h + x)

    def _unit(self, features: int, kernel: int, stride: int) -> ConvNormAct:
        padding = both_sides(kernel, self.ndim) if self.published else "SAME"
        return ConvNormAct(features, kernel, stride, self.norm, self.act, self.dtype, padding=padding)
