"""Displacement fields `(B, *space, n)` in voxels: what was at `x + u(x)` comes to `x`."""

from itertools import product

import jax
import jax.numpy as jnp
from jaxtyping import Float

from medjax.types import Array

Field = Float[Array, "b *space n"]


def warp(image: Float[Array, "b *space c"], displacement: Field) -> Float[Array, "b *space c"]:
    """`image` at the places `x + displacement(x)`, linearly interpolated; outside the image its edge is repeated."""
    return jax.vmap(_warp)(image, displacement)


def integrate(velocity: Field, steps: int = 6) -> Field:
    """The displacement at time 1 of a stationary velocity (in voxels), by scaling and squaring (Arsigny et al., 2006).

    The map is smooth and has a smooth inverse, that of the negative velocity.
    """
    def double(displacement: Array, _: None) -> tuple[Array, None]:
        return displacement + warp(displacement, displacement), None

    return jax.lax.scan(double, velocity / 2**steps, None, length=steps)[0]


def jacobian_determinant(displacement: Field) -> Float[Array, "b *space"]:
    """The determinant of the derivative of `x + displacement(x)`, by central differences: 0 or less where space folds."""
    n = displacement.shape[-1]
    slopes = [jnp.asarray(jnp.gradient(displacement, axis=axis + 1)) for axis in range(n)]
    matrix = jnp.stack(slopes, -1) + jnp.eye(n).reshape((1,) * (n + 1) + (n, n))
    if n == 2:
        return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
    return (jnp.cross(matrix[..., 0, :], matrix[..., 1, :]) * matrix[..., 2, :]).sum(-1)


def _warp(image: Array, displacement: Array) -> Array:
    space = image.shape[:-1]
    below, share = [], []
    for axis, size in enumerate(space):
        at = jax.lax.broadcasted_iota(jnp.float32, space, axis) + displacement[..., axis].astype(jnp.float32)
        at = jnp.clip(at, 0, size - 1)
        low = jnp.minimum(at.astype(jnp.int32), max(size - 2, 0))
        below.append(low)
        share.append(at - low.astype(jnp.float32))
    total = jnp.zeros((*space, image.shape[-1]), jnp.float32)
    for corner in product((0, 1), repeat=len(space)):
        weight = jnp.ones(space, jnp.float32)
        for up, part in zip(corner, share, strict=True):
            weight = weight * (part if up else 1 - part)
        index = tuple(jnp.minimum(low + up, size - 1) for low, up, size in zip(below, corner, space, strict=True))
        total = total + weight[..., None] * image[index]
    return total.astype(image.dtype)
