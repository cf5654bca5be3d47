"""VoxelMorph (Balakrishnan et al., 2019; Dalca et al., 2019): a displacement field from two images."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from medjax.models.blocks import check_ndim, check_same_grid
from medjax.models.unet import UNet
from medjax.ops.displacement import integrate
from medjax.types import Array, Context, UserError


class VoxelMorph(nn.Module):
    """From the moving and the fixed image, stacked as channels, the displacement `(B, *space, ndim)` in voxels.

    A U-Net finds a velocity, which `steps` of scaling and squaring turn into a displacement that does not fold (a
    diffeomorphism); with `steps=0` it is the displacement itself.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 16
    depth: int = 4
    norm: str = "group"
    steps: int = 6
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("voxelmorph", self.scale)
        if self.channels != self.ndim:
            raise UserError("config.model.name", f"voxelmorph makes displacements along {self.ndim} axes; "
                            "use it with task=register")
        velocity = UNet(self.ndim, self.ndim, self.scale, self.width, self.depth, self.norm, residual=False,
                        dtype=self.dtype)(x, train=train)
        return integrate(velocity, self.steps) if self.steps else velocity
