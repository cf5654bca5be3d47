"""Iterative reconstructions (`medjax.classical.iterative`) as references: for any operator, their weight to be chosen."""

import jax
import jax.numpy as jnp

from medjax.classical import iterative
from medjax.classical._declared import grid, method
from medjax.types import Array, Operator


@method("solve", grid(1e-5, 1e-1, 9))
def tv(A: Operator, y: Array, strength: float | Array) -> Array:
    """Total variation, `strength` its weight (Chambolle and Pock, 2011); real images are nowhere negative."""
    return iterative.tv(A, y, strength, iterations=400, nonnegative=not _complex(A, y))


@method("solve", grid(1e-4, 1.0, 9))
def tikhonov(A: Operator, y: Array, strength: float | Array) -> Array:
    """Least squares with `strength` times the image's energy: Wiener's filter for white noise and images."""
    return iterative.cgls(A, y, iterations=30, damping=strength)


@method("solve", grid(1e-5, 1e-1, 9))
def l1_wavelet(A: Operator, y: Array, strength: float | Array) -> Array:
    """Sparse wavelets, `strength` the weight of their sum (Beck and Teboulle, 2009; MRI: Lustig, 2007)."""
    return iterative.l1_wavelet(A, y, strength, iterations=100)


def _complex(A: Operator, y: Array) -> bool:
    return bool(jnp.issubdtype(jax.eval_shape(A.adjoint, y).dtype, jnp.complexfloating))
