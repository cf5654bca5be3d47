"""PatchGAN discriminator (Isola et al., 2017): one judgement per patch."""

from typing import Any

import flax.linen as nn

from medjax.models.blocks import Conv, Norm, activation, check_ndim
from medjax.types import Array


class Patch(nn.Module):
    """`depth` stride-2 convolutions of 4 voxels, then a map of logits `(B, *small, 1)`.

    The image and what it was made from are stacked by the objective. WGAN-GP needs a norm without batch
    statistics (`instance`, `layer`, `none`).
    """

    ndim: int
    width: int = 64
    depth: int = 3
    norm: str = "instance"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        h = x
        for level in range(self.depth):
            h = Conv(self.width * min(2**level, 8), kernel=4, stride=2, dtype=self.dtype)(h)
            h = activation("leaky_relu")(Norm(self.norm if level else "none", self.dtype)(h, train))
        return Conv(1, kernel=4, scale=1.0, dtype=self.dtype)(h).astype("float32")
