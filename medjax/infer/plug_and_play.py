"""Plug-and-play reconstruction (Venkatakrishnan et al., 2013): any measurement, with a denoiser that was trained before."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from medjax.ops.solve import conjugate_gradients
from medjax.train.run import restore_best
from medjax.types import Array, NetworkInput, Operator, UserError

Denoiser = Callable[[Array], Array]


def trained(workdir: Path) -> Denoiser:
    """The denoiser of the run in `workdir`, on images `(B, *space, C)` in unit range. Raises UserError for other runs."""
    run, state = restore_best(workdir)
    if run.config.task.name != "denoise":
        raise UserError(workdir, f"was trained for {run.config.task.name}; plug-and-play needs a run of denoise")
    params, variables = state.for_use()

    def denoise(x: Array) -> Array:
        keys = jax.random.split(jax.random.key(0), x.shape[0])
        return run.objective.predict(params, variables, NetworkInput(x), keys).image

    return denoise


def plug_and_play(A: Operator, y: Array, denoise: Denoiser, weight: float = 0.1, iterations: int = 10,
                  cg_iterations: int = 10) -> Array:
    """Half-quadratic splitting: the denoiser, then the minimum of `|A x - y|^2 + weight |x - denoised|^2`, in turn.

    Starts from `A.init(y)`, for operators of norm about 1. `weight` grows with the noise of the measurement, and the
    denoiser should be one for noise as strong as the artefacts it meets.
    """
    back = A.adjoint(y)

    def step(x: Array, _: None) -> tuple[Array, None]:
        near = denoise(x)
        x = conjugate_gradients(lambda x: A.adjoint(A(x)) + weight * x, back + weight * near, near, cg_iterations)
        return x, None

    return jax.lax.scan(step, A.init(y).astype(jnp.float32), length=iterations)[0]
