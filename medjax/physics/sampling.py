"""Operators made of operators: one for each sample of a batch, a part of the measurement, complex images as channels."""

from dataclasses import replace
from typing import Any

import jax
from jaxtyping import Array, Float, Inexact

from medjax.physics.mri import to_channels, to_complex
from medjax.types import Operator, pytree


@pytree
class PerSample:
    """Each sample of a batch meets its own `operator`, whose leaves have the batch's axis first."""

    operator: Any

    def __call__(self, x: Inexact[Array, "b *s"]) -> Inexact[Array, "b *m"]:
        return jax.vmap(lambda A, x: A(x[None])[0])(self.operator, x)

    def adjoint(self, y: Inexact[Array, "b *m"]) -> Inexact[Array, "b *s"]:
        return jax.vmap(lambda A, y: A.adjoint(y[None])[0])(self.operator, y)

    def init(self, y: Inexact[Array, "b *m"]) -> Inexact[Array, "b *s"]:
        return jax.vmap(lambda A, y: A.init(y[None])[0])(self.operator, y)


@pytree
class Subset:
    """The part of a measurement where `keep`, broadcastable to it, is 1; the rest is 0. `share` is how much is kept."""

    operator: Operator
    keep: Float[Array, "b *m"]
    share: Float[Array, " b"]

    def __call__(self, x: Inexact[Array, "b *s"]) -> Inexact[Array, "b *m"]:
        return self.operator(x) * self.keep

    def adjoint(self, y: Inexact[Array, "b *m"]) -> Inexact[Array, "b *s"]:
        return self.operator.adjoint(y * self.keep)

    def init(self, y: Inexact[Array, "b *m"]) -> Inexact[Array, "b *s"]:
        x = self.operator.init(y * self.keep)
        return x / self.share.reshape(-1, *(1,) * (x.ndim - 1))


@pytree
class ComplexChannels:
    """Complex images as two channels, real and imaginary part, in front of an operator on `(B, *space, 1)`."""

    operator: Any

    def __call__(self, x: Float[Array, "b *space 2"]) -> Inexact[Array, "b *m"]:
        return self.operator(to_complex(x))

    def adjoint(self, y: Inexact[Array, "b *m"]) -> Float[Array, "b *space 2"]:
        return to_channels(self.operator.adjoint(y))

    def init(self, y: Inexact[Array, "b *m"]) -> Float[Array, "b *space 2"]:
        return to_channels(self.operator.init(y))

    def with_maps(self, maps: Inexact[Array, "b *m"]) -> "ComplexChannels":
        """The same operator with other coil sensitivities."""
        return ComplexChannels(replace(self.operator, maps=maps))
