"""DCGAN discriminator (Radford et al., 2016): one judgement per image."""

from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, Norm, activation, check_ndim
from medjax.types import Array


class DCGAN(nn.Module):
    """`depth` stride-2 convolutions with leaky ReLU, then one logit per image, `(B, 1)`; works at any size.

    With `published` the logit has a weight for each voxel of the last grid instead of one for their mean, which ties the
    network to an image size, and convolutions have no bias.
    """

    ndim: int
    width: int = 64
    depth: int = 4
    norm: str = "batch"
    published: bool = False
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        h = x
        for level in range(self.depth):
            h = Conv(self.width * 2**level, kernel=4, stride=2, bias=not self.published, dtype=self.dtype)(h)
            h = activation("leaky_relu")(Norm(self.norm if level else "none", self.dtype)(h, train))
        if self.published:
            logits = Conv(1, h.shape[1:-1], padding="VALID", bias=False, scale=1.0, dtype=self.dtype)(h)
            return logits.astype("float32").reshape(-1, 1)
        features = h.astype("float32").mean(tuple(range(1, h.ndim - 1)))
        return nn.Dense(1)(features)
