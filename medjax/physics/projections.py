"""Parallel projections of volumes from a few directions around the body's long axis, as radiographs show it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.physics.ct import Parallel
from medjax.types import UserError, pytree, static

Volumes = Float[Array, "b d h w c"]


@pytree
class Projections:
    """Line integrals through each axial plane from `views` directions, evenly spread over 180 degrees.

    `(B, D, H, W, C)` to `(B, D, W, views * C)`, divided by H: the mean of what a ray along axis H meets. The first view
    looks along axis H (from the front), of two the second along W (from the side). Pixels of the axial plane are square;
    the detector is as wide as the plane, and outside the plane there is nothing (0).
    """

    views: int = static(default=1)

    def __call__(self, x: Volumes) -> Float[Array, "b d w v"]:
        """The projections. Raises UserError for several views of planes that are not square."""
        batch, slices, height, width, channels = x.shape
        if self.views > 1 and height != width:
            raise UserError("config.task.views", f"{self.views} views need square axial planes; these are {height}x{width}")
        rays = self._scanner(height, width)(x.reshape(-1, height, width, channels)) / height
        per_slice = rays.reshape(batch, slices, self.views, width, channels)
        return jnp.moveaxis(per_slice, 2, 3).reshape(batch, slices, width, -1).astype(x.dtype)

    def backproject(self, y: Float[Array, "b d w v"], depth: int) -> Volumes:
        """The mean of all views, each smeared back along its rays over `depth` pixels: the adjoint times `depth / views`."""
        shape = jax.ShapeDtypeStruct((*y.shape[:2], depth, y.shape[2], y.shape[-1] // self.views), y.dtype)
        (x,) = jax.linear_transpose(self.__call__, shape)(y)
        return x * (depth / self.views)

    def _scanner(self, height: int, width: int) -> Parallel:
        turns = -np.pi * np.arange(self.views) / self.views  # the detector of a view from the side counts down the rows
        return Parallel((height, width), 1.0, turns.tolist(), width, 1.0)
