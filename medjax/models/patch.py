"""PatchGAN discriminator (Isola et al., 2017): one judgement per patch."""

from typing import Any

import flax.linen as nn

from medjax.models.blocks import WITHOUT_BIAS, Conv, Norm, activation, check_ndim
from medjax.types import Array


class Patch(nn.Module):
    """`depth` stride-2 convolutions of 4 voxels, then a map of logits `(B, *small, 1)`.

    The image and what it was made from are stacked by the objective. WGAN-GP needs a norm without batch
    statistics (`instance`, `layer`, `none`). With `published` a convolution of stride 1 comes before the last and each
    logit sees 70 voxels a side instead of 46 (at depth 3); convolutions before a normalisation with a bias have none.
    """

    ndim: int
    width: int = 64
    depth: int = 3
    norm: str = "instance"
    published: bool = False
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        h, bias = x, True
        padding: str | tuple[tuple[int, int], ...] = "SAME"
        if self.published:
            bias, padding = self.norm in WITHOUT_BIAS, ((1, 1),) * self.ndim
        for level in range(self.depth + self.published):
            stride = 2 if level < self.depth else 1
            h = Conv(self.width * min(2**level, 8), 4, stride, padding, bias or not level, dtype=self.dtype)(h)
            h = activation("leaky_relu")(Norm(self.norm if level else "none", self.dtype)(h, train))
        return Conv(1, kernel=4, padding=padding, scale=1.0, dtype=self.dtype)(h).astype("float32")
