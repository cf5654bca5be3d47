"""Conjugate gradients on batches, with the gradient of what is computed (Hestenes and Stiefel 1952)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact

Batched = Inexact[Array, "b *s"]
Carry = tuple[Array, Array, Array, Array]


def conjugate_gradients(matvec: Callable[[Batched], Batched], b: Batched, start: Batched | None = None,
                        iterations: int = 10) -> Batched:
    """`x` with `matvec(x) = b`, sample by sample, after `iterations` from `start` (or 0), each sample `(*s)`.

    `matvec` is Hermitian and positive definite. The number of iterations is fixed, so that a sharded batch needs no
    communication; a sample that has converged rests. Gradients, to `b`, `start` and what `matvec` closes over, are those
    of the iterations, converged or not; the backward pass recomputes each from its three images.
    """
    if start is None:
        return _iterate(matvec, b, iterations)
    return start + _iterate(matvec, b - matvec(start), iterations)


def inner(a: Batched, b: Batched) -> Float[Array, "b *ones"]:
    """The real inner product of each sample, `(B, 1, …)`."""
    return jnp.sum(jnp.real(jnp.conj(a) * b), axis=tuple(range(1, a.ndim)), keepdims=True)


def _iterate(matvec: Callable[[Batched], Batched], residual: Batched, iterations: int) -> Batched:
    """Conjugate gradients from zero, of the residual divided by its norm: squares of energies stay in range."""
    size = lax.stop_gradient(jnp.sqrt(inner(residual, residual)))
    size = jnp.where(size > 0, size, 1)
    residual = residual / size
    energy = inner(residual, residual)
    tiny = jnp.finfo(residual.dtype).eps ** 2

    def step(carry: Carry, _: None) -> tuple[Carry, None]:
        x, residual, direction, energy = carry
        applied = matvec(direction)
        curvature = inner(direction, applied)
        going = (energy > tiny) & (curvature > 0)
        length = jnp.where(going, energy / jnp.where(going, curvature, 1), 0)
        x = x + length * direction
        residual = residual - length * applied
        new_energy = inner(residual, residual)
        direction = residual + jnp.where(going, new_energy / jnp.where(going, energy, 1), 0) * direction
        return (x, residual, direction, new_energy), None

    start = (jnp.zeros_like(residual), residual, residual, energy)
    return lax.scan(jax.checkpoint(step, prevent_cse=False), start, length=iterations)[0][0] * size
