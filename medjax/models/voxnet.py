"""From few projections to a volume: a 2-D network whose channels become the depth (Shen et al., 2019)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import Conv, ConvNormAct
from medjax.models.unet import UNet
from medjax.types import Array, Context, Measurement, UserError


class VoxNet(nn.Module):
    """Projections `(B, D, W, V)` to a volume `(B, D, H, W, C)`, in unit range.

    A U-Net on the projections makes `lift` channels for each of the H voxels along the ray; `blocks` 3-D convolutions with
    shortcuts work on the volume of them. `context` `(B, D, H, W, 0)` holds no values: its shape is the grid to fill, and H
    is part of the network's shape.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 32
    depth: int = 3
    lift: int = 8
    blocks: int = 2
    norm: str = "group"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        if x.ndim != 4 or isinstance(context, Measurement | None) or context.ndim != 5:
            raise UserError("config.model.name", "voxnet makes volumes of projections; use it with task=volume")
        batch, slices, rays, columns, _ = context.shape
        flat = UNet(2, rays * self.lift, (1, 1), self.width, self.depth, self.norm, residual=False,
                    dtype=self.dtype)(x, train=train)
        h = jnp.moveaxis(flat.reshape(batch, slices, columns, rays, self.lift), 3, 2)
        for _ in range(self.blocks):
            h = h + ConvNormAct(self.lift, norm=self.norm, dtype=self.dtype)(h, train)
        return Conv(self.channels, scale=0.5, dtype=self.dtype)(h).astype(x.dtype)
