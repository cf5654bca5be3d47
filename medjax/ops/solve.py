"""Conjugate gradients on batches, differentiable without storing the iterations (Hestenes and Stiefel 1952)."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact

Batched = Inexact[Array, "b *s"]


def conjugate_gradients(matvec: Callable[[Batched], Batched], b: Batched, start: Batched | None = None,
                        iterations: int = 10) -> Batched:
    """`x` with `matvec(x) = b`, sample by sample; `matvec` is Hermitian and positive definite.

    A fixed number of iterations keeps a sharded batch free of communication; a sample that has converged rests. Gradients
    to `b` and to what `matvec` closes over come from one more such solve; none goes to `start`.
    """
    start = jnp.zeros_like(b) if start is None else lax.stop_gradient(start)

    def solve(matvec, rhs):
        return _iterate(matvec, rhs - matvec(start), iterations) + start

    def solve_transposed(vecmat, rhs):
        # The transpose of a Hermitian matrix is its conjugate.
        return jnp.conj(_iterate(lambda x: jnp.conj(vecmat(jnp.conj(x))), jnp.conj(rhs), iterations))

    return lax.custom_linear_solve(matvec, b, solve, solve_transposed)


def inner(a: Batched, b: Batched) -> Array:
    """The real inner product of each sample, `(B, 1, …)`."""
    return jnp.sum(jnp.real(jnp.conj(a) * b), axis=tuple(range(1, a.ndim)), keepdims=True)


def _iterate(matvec, residual, iterations):
    """Conjugate gradients from zero."""
    tiny = jnp.finfo(residual.dtype).eps ** 2 * inner(residual, residual)

    def step(carry, _):
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

    start = (jnp.zeros_like(residual), residual, residual, inner(residual, residual))
    return lax.scan(step, start, length=iterations)[0][0]
