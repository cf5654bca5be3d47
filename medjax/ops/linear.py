"""Linear maps that bring their own transpose: differentiable to any order in both modes, mapped, jitted, sharded."""

import functools
from typing import Protocol

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Inexact


class LinearMap(Protocol):
    """A hashable pair of functions on arrays `(*s, n)` that treat the `n` columns alike, each the other's transpose."""

    def forward(self, x: Inexact[Array, "*s n"]) -> Inexact[Array, "*t n"]:
        """The map, in plain JAX operations. The result has as many axes as `x`."""
        ...

    def transpose(self, y: Inexact[Array, "*t n"]) -> Inexact[Array, "*s n"]:
        """Its transpose, likewise."""
        ...


def apply(linear: LinearMap, x: Inexact[Array, "*s n"]) -> Inexact[Array, "*t n"]:
    """`linear.forward(x)`; reverse-mode differentiation runs `linear.transpose` and not what JAX would derive."""
    return _linear.bind(x, linear=linear, transposed=False)


def apply_transpose(linear: LinearMap, y: Inexact[Array, "*t n"]) -> Inexact[Array, "*s n"]:
    """`linear.transpose(y)`; its derivative runs `linear.forward`."""
    return _linear.bind(y, linear=linear, transposed=True)


def _plain(x, *, linear, transposed):
    return linear.transpose(x) if transposed else linear.forward(x)


def _abstract(x, **which):
    out = jax.eval_shape(functools.partial(_plain, **which), jax.ShapeDtypeStruct(x.shape, x.dtype))
    return x.update(shape=out.shape, dtype=out.dtype, weak_type=False)


@functools.partial(jax.jit, static_argnames=("linear", "transposed"))
def _eager(x, *, linear, transposed):
    return _linear.bind(x, linear=linear, transposed=transposed)


def _transpose(cotangent, x, *, linear, transposed):
    return [_linear.bind(cotangent, linear=linear, transposed=not transposed)]


def _batch(operands, mapped, **which):
    """The mapped axis folds into the columns."""
    x = jnp.moveaxis(operands[0], mapped[0], -1)
    y = _linear.bind(x.reshape(*x.shape[:-2], -1), **which)
    return y.reshape(*y.shape[:-1], *x.shape[-2:]), y.ndim


_linear = Primitive("linear_map")
_linear.def_impl(_eager)
_linear.def_abstract_eval(_abstract)
ad.deflinear2(_linear, _transpose)
batching.primitive_batchers[_linear] = _batch
mlir.register_lowering(_linear, mlir.lower_fun(_plain, multiple_results=False))
