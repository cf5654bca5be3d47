"""Iterative reconstruction without training, for any operator of `medjax.physics`: jit them, or call them in a jitted step.

Measurements and images carry the batch first, and every sample is solved on its own. A fixed number of iterations runs.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact, PRNGKeyArray

from medjax.ops import wavelet
from medjax.ops.solve import conjugate_gradients, inner
from medjax.types import Operator

Image = Inexact[Array, "b *space c"]
Measured = Inexact[Array, "b *m"]


def sirt(A: Operator, y: Measured, iterations: int = 100, nonnegative: bool = True) -> Image:
    """Simultaneous iterative reconstruction: the residual, averaged over rays and over pixels (Gilbert 1972)."""
    image = jax.eval_shape(A.adjoint, y)
    per_ray, per_pixel = (_inverse(v) for v in (A(jnp.ones(image.shape, image.dtype)), A.adjoint(jnp.ones_like(y))))

    def step(x: Array, _: None) -> tuple[Array, None]:
        x = x + per_pixel * A.adjoint(per_ray * (y - A(x)))
        return jnp.maximum(x, 0) if nonnegative else x, None

    return lax.scan(step, jnp.zeros(image.shape, image.dtype), length=iterations)[0]


def cgls(A: Operator, y: Measured, iterations: int = 20, damping: float | Array = 0.0, start: Image | None = None) -> Image:
    """Least squares `|A x - y|^2 + damping |x|^2` by conjugate gradients on the normal equations.

    For MRI this is CG-SENSE (Pruessmann 2001).
    """
    return conjugate_gradients(lambda x: A.adjoint(A(x)) + damping * x, A.adjoint(y), start, iterations)


def tv(A: Operator, y: Measured, weight: float | Array, iterations: int = 200, nonnegative: bool = True) -> Image:
    """`|A x - y|^2 / 2 + weight TV(x)`, isotropic total variation, by primal-dual splitting (Chambolle and Pock 2011).

    The step sizes come from the norms of `A`, which is estimated, and of the gradient. Images have unit range.
    """
    image = jax.eval_shape(A.adjoint, y)
    axes = tuple(range(1, len(image.shape) - 1))
    # Both halves of the stacked operator get the norm of A, and so the same share of the step.
    norm = _rows(operator_norm(A, image), len(image.shape))
    scale = norm / jnp.sqrt(4.0 * len(axes))
    # The dual of the gradient grows to the weight at most, small beside an image, and so its steps are shorter and those of
    # the image longer. With equal steps it takes ten times as many iterations to the same objective.
    balance = jnp.clip(10 * weight, 0.03, 1)
    step_size = 0.99 / (norm * jnp.sqrt(2.0) * balance)
    dual_step = step_size * balance**2
    step_of_dual = _rows(dual_step, y.ndim)

    def step(carry: tuple[Array, Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array, Array], None]:
        x, ahead, dual, flow = carry
        dual = (dual + step_of_dual * (A(ahead) - y)) / (1 + step_of_dual)
        flow = flow + (dual_step * scale)[None] * _gradient(ahead, axes)
        flow = flow / jnp.maximum(jnp.linalg.norm(flow, axis=0, keepdims=True) * scale[None] / weight, 1)
        new = x - step_size * (A.adjoint(dual) + scale * _gradient_transposed(flow, axes))
        new = jnp.maximum(new, 0) if nonnegative else new
        return (new, 2 * new - x, dual, flow), None

    x = jnp.zeros(image.shape, image.dtype)
    start = (x, x, jnp.zeros_like(y), jnp.zeros((len(axes), *x.shape), x.dtype))
    return lax.scan(step, start, length=iterations)[0][0]


def l1_wavelet(A: Operator, y: Measured, weight: float | Array, iterations: int = 100, levels: int = 4,
               name: str = "db4") -> Image:
    """`|A x - y|^2 / 2 + weight |W x|_1` by FISTA (Beck and Teboulle 2009; MRI: Lustig 2007).

    The wavelet grid moves by a pixel or more each iteration (cycle spinning), so that no blocks show. Images whose sizes
    are no multiples of `2 ** levels` are padded in the wavelets only.
    """
    image = jax.eval_shape(A.adjoint, y)
    axes = tuple(range(1, len(image.shape) - 1))
    step_size = 0.99 / jnp.square(_rows(operator_norm(A, image), len(image.shape)))
    pad = [(0, -n % 2**levels if a in axes else 0) for a, n in enumerate(image.shape)]

    def denoise(x: Image, key: PRNGKeyArray) -> Image:
        shifts = tuple(jax.random.randint(key, (len(axes),), 0, 2**levels))
        wide = jnp.roll(jnp.pad(x, pad, mode="edge"), shifts, axes)
        coefficients = wavelet.shrink(wavelet.forward(wide, axes, levels, name), weight * step_size)
        back = jnp.roll(wavelet.inverse(coefficients, axes, levels, name), tuple(-s for s in shifts), axes)
        return back[tuple(slice(0, n) for n in x.shape)]

    def step(carry: tuple[Array, Array, Array], key: PRNGKeyArray) -> tuple[tuple[Array, Array, Array], None]:
        x, ahead, t = carry
        new = denoise(ahead - step_size * A.adjoint(A(ahead) - y), key)
        new_t = (1 + jnp.sqrt(1 + 4 * t * t)) / 2
        return (new, new + ((t - 1) / new_t) * (new - x), new_t), None

    x = jnp.zeros(image.shape, image.dtype)
    return lax.scan(step, (x, x, jnp.ones(())), jax.random.split(jax.random.key(0), iterations))[0][0]


def operator_norm(A: Operator, image: jax.ShapeDtypeStruct, iterations: int = 20) -> Array:
    """The largest singular value of each sample's `A`, `(B,)`, by power iteration from a fixed start; low by 1 % or so."""
    def step(x: Array, _: None) -> tuple[Array, None]:
        x = A.adjoint(A(x / jnp.sqrt(inner(x, x))))
        return x, None

    start = jnp.broadcast_to(jax.random.normal(jax.random.key(0), image.shape[1:]), image.shape).astype(image.dtype)
    x = lax.scan(step, start, length=iterations)[0]
    return jnp.sqrt(jnp.sqrt(inner(x, x))).reshape(-1)


def _rows(values: Array, ndim: int) -> Array:
    """One value for each sample, as an array of `ndim` axes."""
    return values.reshape(-1, *(1,) * (ndim - 1))


def _inverse(v: Inexact[Array, "*s"]) -> Inexact[Array, "*s"]:
    return jnp.where(jnp.abs(v) > 1e-6 * jnp.abs(v).max(), 1 / jnp.where(v == 0, 1, v), 0)


def _gradient(x: Image, axes: Sequence[int]) -> Inexact[Array, "axes b *space c"]:
    """Forward differences along the axes, 0 at the far edge, stacked first."""
    return jnp.stack([jnp.diff(x, axis=a, append=lax.slice_in_dim(x, x.shape[a] - 1, x.shape[a], axis=a)) for a in axes])


def _gradient_transposed(flow: Inexact[Array, "axes b *space c"], axes: Sequence[int]) -> Image:
    total = jnp.zeros_like(flow[0])
    for part, a in zip(flow, axes, strict=True):
        inside = lax.slice_in_dim(part, 0, part.shape[a] - 1, axis=a)
        before, after = [(0, 0)] * part.ndim, [(0, 0)] * part.ndim
        before[a], after[a] = (1, 0), (0, 1)
        total += jnp.pad(inside, before) - jnp.pad(inside, after)
    return total
