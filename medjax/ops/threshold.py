"""Classical segmentation in forms that jit: maps that a network takes as a prior."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float

from medjax.types import Array

BINS = 128


def otsu(x: Float[Array, "*space"], mask: Bool[Array, "*space"]) -> Float[Array, ""]:
    """The threshold of values in 0 … 1 that divides those under the mask into two with least variance (Otsu, 1979)."""
    bins = jnp.clip((x * BINS).astype(jnp.int32), 0, BINS - 1)
    counts = jnp.zeros(BINS).at[bins.reshape(-1)].add(mask.reshape(-1).astype(jnp.float32))
    centres = (jnp.arange(BINS) + 0.5) / BINS
    below, sum_below = jnp.cumsum(counts), jnp.cumsum(counts * centres)
    above, sum_above = below[-1] - below, sum_below[-1] - sum_below
    gap = sum_below / jnp.maximum(below, 1) - sum_above / jnp.maximum(above, 1)
    return centres[jnp.argmax(below * above * jnp.square(gap))] + 0.5 / BINS


def edge_strength(x: Float[Array, "*space"]) -> Float[Array, "*space"]:
    """The norm of the central differences, per voxel."""
    total = jnp.zeros_like(x)
    for axis in range(x.ndim):
        total += jnp.square(jnp.asarray(jnp.gradient(x, axis=axis)))
    return jnp.sqrt(total)


def grow(inside: Bool[Array, "*space"], seed: Bool[Array, "*space"], steps: int = 64) -> Bool[Array, "*space"]:
    """What of `inside` hangs together with `seed` by faces, at most `steps` voxels away."""
    def step(_: Array, region: Array) -> Array:
        grown = region
        for axis in range(region.ndim):
            pad = [(1, 1) if a == axis else (0, 0) for a in range(region.ndim)]
            padded = jnp.pad(region, pad)
            size = region.shape[axis]
            grown |= lax.slice_in_dim(padded, 0, size, axis=axis) | lax.slice_in_dim(padded, 2, size + 2, axis=axis)
        return grown & inside

    return lax.fori_loop(0, steps, step, seed & inside)
