"""Whether an image agrees with what was measured of it."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

RESIDUAL, TRUTH = "residual", "residual_truth"
"""What tasks call the residual of an image, and that of its truth, among what they measure of a sample."""


def residual(made: Inexact[Array, "b *s"], y: Inexact[Array, "b *s"],
             deviation: Float[Array, "..."] | None) -> Float[Array, " b"]:
    """The root mean square of `made - y`, what an image would have measured less what was, `(B,)`.

    It is in units of the noise, whose standard deviation (of real and imaginary part each) is `deviation`, broadcastable to
    `y`: 1 for an image that leaves nothing but noise. Without it, in units of the root mean square of `y`. Where both are 0
    nothing was measured (samples of k-space that were left out, missing pixels), and nothing counts.
    """
    axes = tuple(range(1, y.ndim))
    counts = (y != 0) | (made != 0)
    parts = 2 if jnp.iscomplexobj(y) else 1
    unit = _mean(jnp.square(jnp.abs(y)), counts, axes, keepdims=True) / parts if deviation is None else jnp.square(deviation)
    return jnp.sqrt(_mean(jnp.square(jnp.abs(made - y)) / (parts * unit), counts, axes))


def _mean(values: Float[Array, "..."], counts: Bool[Array, "..."], axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """The mean of what counts; NaN where nothing does."""
    return jnp.mean(values, axes, where=counts, keepdims=keepdims)
