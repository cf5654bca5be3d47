"""Learned primal-dual reconstruction (Adler and Öktem, 2018): small networks in image and measurement, in turn."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import Conv, check_ndim, check_same_grid
from medjax.models.consistency import measurement
from medjax.types import Array, Context, UserError


class PrimalDual(nn.Module):
    """`iterations` with `memory` images and as many measurements between them, updated by three convolutions of `width`.

    Measurements are real, `(B, *m, C)` with as many axes as the image, as in CT; the first image is the task's input.
    As published: 10 iterations, `width` 32, `memory` 5, and `act="prelu_channel"`.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    iterations: int = 6
    width: int = 24
    memory: int = 4
    act: str = "leaky_relu"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("primal_dual", self.scale)
        found = measurement("primal_dual", context)
        A, y = found.operator, found.y
        if jnp.iscomplexobj(y) or y.ndim != x.ndim:
            raise UserError("config.model.name", "primal_dual works on real measurements such as sinograms; for MRI use "
                            "varnet or modl")
        step = nn.remat(_Step)
        primal = jnp.concatenate([x] * self.memory, -1)
        dual = jnp.zeros((*y.shape[:-1], y.shape[-1] * self.memory), x.dtype)
        for i in range(self.iterations):
            primal, dual = step(self.width, x.shape[-1], self.act, self.dtype, name=f"step{i}")(primal, dual, A, y)
        return primal[..., : self.channels]


class _Step(nn.Module):
    """The measurements' update, then the images'."""

    width: int
    channels: int
    act: str
    dtype: Any

    @nn.compact
    def __call__(self, primal: Array, dual: Array, A: Any, y: Array) -> tuple[Array, Array]:
        # The second image is what the operator looks at, the first what is handed on, as published.
        seen = A(primal[..., self.channels: 2 * self.channels])
        dual = dual + self._network(dual, seen, y)
        back = A.adjoint(dual[..., : y.shape[-1]])
        return primal + self._network(primal, back), dual

    def _network(self, *parts: Array) -> Array:
        h = jnp.concatenate(parts, -1)
        for _ in range(2):
            h = Conv(self.width, act=self.act, dtype=self.dtype)(h)
        return Conv(parts[0].shape[-1], scale=0.1, dtype=self.dtype)(h).astype(parts[0].dtype)
