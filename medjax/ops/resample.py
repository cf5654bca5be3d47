"""Changing the grid: pooling, upsampling, pixel shuffle. Forms that stay local when an axis is sharded."""

import functools
import math
from collections.abc import Sequence
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float, Shaped

from medjax.types import Array


def _factors(x: Array, factor: int | Sequence[int]) -> tuple[int, ...]:
    return (factor,) * (x.ndim - 2) if isinstance(factor, int) else tuple(factor)


def max_pool(x: Float[Array, "b *space c"], factor: int | Sequence[int] = 2) -> Float[Array, "b *small c"]:
    """Maximum over blocks of `factor` along each spatial axis; sizes must divide. Equal maxima share the gradient."""
    return _max_pool(x, _factors(x, factor))


def mean_pool(x: Float[Array, "b *space c"], factor: int | Sequence[int] = 2) -> Float[Array, "b *small c"]:
    """Mean over blocks of `factor` along each spatial axis; sizes must divide."""
    factors = _factors(x, factor)
    return _sum_pool(x, factors) / math.prod(factors)


def nearest(x: Shaped[Array, "b *space c"], factor: int | Sequence[int] = 2) -> Shaped[Array, "b *small c"]:
    """The middle voxel of every block of `factor` along each spatial axis, of two the later ("nearest-exact" in PyTorch).

    Sizes are rounded up; where the middle of the last block lies beyond the edge, it is 0.
    """
    factors = _factors(x, factor)
    pads = [(0, 0), *((0, -size % f) for size, f in zip(x.shape[1:-1], factors, strict=True)), (0, 0)]
    return jnp.pad(x, pads)[(slice(None), *(slice(f // 2, None, f) for f in factors))]


def upsample(x: Float[Array, "b *space c"], factor: int | Sequence[int] = 2) -> Float[Array, "b *large c"]:
    """Nearest neighbour: every voxel repeated `factor` times along each spatial axis."""
    return _repeat(x, _factors(x, factor))


def upsample_linear(x: Float[Array, "b *space c"]) -> Float[Array, "b *large c"]:
    """Twice as many voxels along each spatial axis, linearly interpolated between their centres; the edge is repeated."""
    for axis in range(1, x.ndim - 1):
        size = x.shape[axis]
        cut = partial(lax.slice_in_dim, x, axis=axis)
        before = jnp.concatenate([cut(0, 1), cut(0, size - 1)], axis)
        after = jnp.concatenate([cut(1, size), cut(size - 1, size)], axis)
        both = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = both.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1:])
    return x


# On CPU, sums and maxima of strided slices and repeats by broadcasting compile to one fused loop. Their transposes,
# strided pads and reductions of blocks, cost up to 200 times as much. So each map below is computed in the form that
# is fast, and differentiated in the equal form whose transpose is.


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_pool(x: Array, factors: tuple[int, ...]) -> Array:
    return functools.reduce(jnp.maximum, _corners(x, factors))


@_max_pool.defjvp
def _max_pool_jvp(factors: tuple[int, ...], primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    y = _max_pool(x, factors)
    share = 1 / functools.reduce(jnp.add, [(corner == y).astype(x.dtype) for corner in _corners(x, factors)])
    return y, _sum_blocks(jnp.where(x == _broadcast(y, factors), dx, 0), factors) * share


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _sum_pool(x: Array, factors: tuple[int, ...]) -> Array:
    return functools.reduce(jnp.add, _corners(x, factors))


@_sum_pool.defjvp
def _sum_pool_jvp(factors: tuple[int, ...], primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _sum_pool(*primals, factors), _sum_blocks(*tangents, factors)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _repeat(x: Array, factors: tuple[int, ...]) -> Array:
    return _broadcast(x, factors)


@_repeat.defjvp
def _repeat_jvp(factors: tuple[int, ...], primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (dx,) = tangents
    places = product(*(range(f) for f in factors))
    spread = (((0, 0, 0), *((o, f - 1 - o, f - 1) for o, f in zip(at, factors, strict=True)), (0, 0, 0)) for at in places)
    parts = [lax.pad(dx, jnp.zeros((), dx.dtype), pads) for pads in spread]
    return _repeat(*primals, factors), functools.reduce(jnp.add, parts)


def _corners(x: Array, factors: tuple[int, ...]) -> list[Array]:
    """Of every block the first voxel, of every block the second, and so on."""
    return [x[(slice(None), *(slice(o, None, f) for o, f in zip(at, factors, strict=True)))]
            for at in product(*(range(f) for f in factors))]


def _sum_blocks(x: Array, factors: tuple[int, ...]) -> Array:
    split = [x.shape[0]]
    for size, f in zip(x.shape[1:-1], factors, strict=True):
        split += [size // f, f]
    return x.reshape(*split, x.shape[-1]).sum(axis=tuple(range(2, len(split), 2)))


def _broadcast(x: Array, factors: tuple[int, ...]) -> Array:
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


def pixel_unshuffle(x: Float[Array, "b *large c"], factor: int | Sequence[int] = 2) -> Float[Array, "b *small fc"]:
    """Space to channels, N-d: the inverse of `pixel_shuffle`. The sizes are multiples of `factor`."""
    factors = _factors(x, factor)
    n, channels = len(factors), x.shape[-1]
    space = [size // f for size, f in zip(x.shape[1:1 + n], factors, strict=True)]
    pairs = [size for pair in zip(space, factors, strict=True) for size in pair]
    order = [0, *range(1, 1 + 2 * n, 2), *range(2, 2 + 2 * n, 2), 1 + 2 * n]
    return x.reshape(x.shape[0], *pairs, channels).transpose(order).reshape(x.shape[0], *space, -1)


def doublings(scale: Sequence[int]) -> list[tuple[int, ...]]:
    """Factors per axis, one set for each step, that make up `scale`: 2 as long as it is even, then the rest."""
    steps, rest = [], tuple(scale)
    while math.prod(rest) > 1:
        steps.append(tuple(2 if size % 2 == 0 else size for size in rest))
        rest = tuple(size // step for size, step in zip(rest, steps[-1], strict=True))
    return steps
