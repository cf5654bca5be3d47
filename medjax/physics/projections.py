"""Parallel projections of volumes from few directions around the body's long axis."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from medjax.ops.displacement import warp
from medjax.types import Array, UserError, pytree, static

Volumes = Float[Array, "b d h w c"]


@pytree
class Projections:
    """The mean along parallel rays in each axial plane, from `views` directions spread evenly over 180 degrees.

    The first looks along axis H (from the front), of two the second along W (from the side). With more than one, H and W
    have to be equal. `(B, D, H, W, C)` to `(B, D, W, views * C)`.
    """

    views: int = static(default=1)

    def __call__(self, x: Volumes) -> Float[Array, "b d w v"]:
        """The projections. Raises UserError where several views meet a plane that is not square."""
        if self.views > 1 and x.shape[2] != x.shape[3]:
            raise UserError("config.task.views", f"{self.views} views need square axial planes; these are "
                            f"{x.shape[2]}x{x.shape[3]}")
        return jnp.concatenate([self._turned(x, view).mean(2) for view in range(self.views)], -1)

    def backproject(self, y: Float[Array, "b d w v"], depth: int) -> Volumes:
        """Every projection smeared back along its rays, and their mean: the adjoint, times H."""
        shape = jax.ShapeDtypeStruct((*y.shape[:2], depth, y.shape[2], y.shape[-1] // self.views), y.dtype)
        (x,) = jax.linear_transpose(self.__call__, shape)(y)
        return x * (depth / self.views)

    def _turned(self, x: Array, view: int) -> Array:
        angle = np.pi * view / self.views
        if view == 0:
            return x
        height, width = x.shape[2:4]
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        rows, columns = rows - (height - 1) / 2, columns - (width - 1) / 2
        cos, sin = np.cos(angle), np.sin(angle)
        moved = np.stack([cos * rows + sin * columns - rows, cos * columns - sin * rows - columns], -1).astype(np.float32)
        planes = x.reshape(-1, height, width, x.shape[-1])
        turned = warp(planes, jnp.broadcast_to(moved[None], (len(planes), *moved.shape)))
        return turned.reshape(x.shape)
