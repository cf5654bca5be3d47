"""Filtering along one axis, as a sum of shifted slices: float32-exact on every device, and it shards with halos."""

import functools
import operator

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact, Real


def correlate_axis(x: Inexact[Array, "*s"], taps: Inexact[Array, " k"], axis: int,
                   stride: int = 1) -> Inexact[Array, "*t"]:
    """`y[i] = sum_k taps[k] x[i * stride + k]` along `axis`, only where the taps fit ("valid")."""
    n = (x.shape[axis] - taps.shape[0]) // stride + 1
    stop = (n - 1) * stride + 1
    taps = taps.astype(x.dtype)
    return functools.reduce(operator.add, (taps[k] * lax.slice_in_dim(x, k, k + stop, stride, axis)
                                           for k in range(taps.shape[0])))


def gaussian_taps(sigma: float | Real[Array, ""], radius: int, centre: float = 0.0) -> Real[Array, " k"]:
    """A Gaussian of standard deviation `sigma` samples on `-radius … radius`, of sum 1; `sigma` may be traced."""
    t = jnp.arange(-radius, radius + 1) - centre
    weights = jnp.exp(-0.5 * jnp.square(t / jnp.maximum(sigma, 1e-3)))
    return weights / weights.sum()


def pad_axis(x: Inexact[Array, "*s"], before: int, after: int, axis: int, mode: str) -> Inexact[Array, "*t"]:
    """`jnp.pad` of one axis (`mode` as there)."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (before, after)
    return jnp.pad(x, widths, mode=mode)
