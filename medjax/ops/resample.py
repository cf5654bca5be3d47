"""Changing the grid: pooling, upsampling, pixel shuffle. Forms that stay local when an axis is sharded."""

from collections.abc import Sequence
from itertools import product

import jax.numpy as jnp
from jaxtyping import Float

from medjax.types import Array


def _factors(x: Array, factor: int | Sequence[int]) -> tuple[int, ...]:
    return (factor,) * (x.ndim - 2) if isinstance(factor, int) else tuple(factor)


def max_pool(x: Float[Array, "b *space c"], factor: int | Sequence[int] = 2) -> Float[Array, "b *small c"]:
    """Maximum over blocks of `factor` along each spatial axis; sizes must divide.

    The maximum of strided slices compiles to one fused loop on CPU, where `reduce_window` costs ten times as much.
    """
    factors = _factors(x, factor)
    corners = [x[(slice(None), *(slice(o, None, f) for o, f in zip(at, factors, strict=True)))]
               for at in product(*(range(f) for f in factors))]
    result = corners[0]
    for corner in corners[1:]:
        result = jnp.maximum(result, corner)
    return result


def mean_pool(x: Float[Array, "b *space c"], factor: int | Sequence[int] = 2) -> Float[Array, "b *small c"]:
    """Mean over blocks of `factor` along each spatial axis; sizes must divide."""
    shape = [x.shape[0]]
    for size, f in zip(x.shape[1:-1], _factors(x, factor), strict=True):
        shape += [size // f, f]
    return x.reshape(*shape, x.shape[-1]).mean(axis=tuple(range(2, len(shape), 2)))


def upsample(x: Float[Array, "b *space c"], factor: int | Sequence[int] = 2) -> Float[Array, "b *large c"]:
    """Nearest neighbour: every voxel repeated `factor` times along each spatial axis."""
    factors = _factors(x, factor)
    split = [x.shape[0]]
    whole = [x.shape[0]]
    for size, f in zip(x.shape[1:-1], factors, strict=True):
        split += [size, f]
        whole += [size * f]
    index = (slice(None), *(part for _ in factors for part in (slice(None), None)), slice(None))
    return jnp.broadcast_to(x[index], (*split, x.shape[-1])).reshape(*whole, x.shape[-1])


def pixel_shuffle(x: Float[Array, "b *space fc"], factor: int | Sequence[int] = 2) -> Float[Array, "b *large c"]:
    """Channels to space, N-d (Shi et al., 2016): `(B, *S, prod(factor) * C)` to `(B, *(S * factor), C)`."""
    factors = _factors(x, factor)
    n = len(factors)
    x = x.reshape(*x.shape[:-1], *factors, -1)
    order = [0, *(axis for i in range(n) for axis in (1 + i, 1 + n + i)), 1 + 2 * n]
    space = [size * f for size, f in zip(x.shape[1:1 + n], factors, strict=True)]
    return x.transpose(order).reshape(x.shape[0], *space, -1)
