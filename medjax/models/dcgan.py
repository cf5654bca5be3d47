"""DCGAN discriminator (Radford et al., 2016): one judgement per image."""

from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, Norm, activation, check_ndim
from medjax.types import Array


class DCGAN(nn.Module):
    """`depth` stride-2 convolutions with leaky ReLU, then one logit per image, `(B, 1)`; works at any size."""

    ndim: int
    width: int = 64
    depth: int = 4
    norm: str = "batch"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        h = x
        for level in range(self.depth):
            h = Conv(self.width * 2**level, kernel=4, stride=2, dtype=self.dtype)(h)
            h = activation("leaky_relu")(Norm(self.norm if level else "none", self.dtype)(h, train))
        features = h.astype("float32").mean(tuple(range(1, h.ndim - 1)))
        return nn.Dense(1)(features)
