"""Linear maps that bring their own transpose: differentiable to any order in both modes, mapped, jitted, sharded."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax._src import dispatch
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Inexact


@runtime_checkable
class LinearMap(Protocol):
    """A hashable pair of functions, each the other's transpose, that treat all indices of one axis (`columns`) alike.

    `columns` is 0 or -1; the result has as many axes as the argument. `tables` are arrays that both read.
    """

    columns: int

    @property
    def forward(self) -> Callable[..., Array]:
        """The map, in plain JAX operations: of `x` and the tables."""
        ...

    @property
    def transpose(self) -> Callable[..., Array]:
        """Its transpose (not conjugated), likewise."""
        ...


def apply(linear: LinearMap, x: Inexact[Array, "*s"], *tables: Array) -> Inexact[Array, "*t"]:
    """`linear.forward(x, *tables)`; its reverse mode runs `linear.transpose`, not what JAX would derive.

    The tables get no gradient.
    """
    return _linear.bind(x, *map(lax.stop_gradient, tables), linear=linear, transposed=False)


def apply_transpose(linear: LinearMap, y: Inexact[Array, "*t"], *tables: Array) -> Inexact[Array, "*s"]:
    """`linear.transpose(y, *tables)`; its reverse mode runs `linear.forward`."""
    return _linear.bind(y, *map(lax.stop_gradient, tables), linear=linear, transposed=True)


def _plain(x: Array, *tables: Array, linear: LinearMap, transposed: bool) -> Array:
    return linear.transpose(x, *tables) if transposed else linear.forward(x, *tables)


def _abstract(x: ShapedArray, *tables: ShapedArray, **which: Any) -> ShapedArray:
    structs = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in (x, *tables)]
    out = jax.eval_shape(functools.partial(_plain, **which), *structs)
    return x.update(shape=out.shape, dtype=out.dtype, weak_type=False)


@functools.partial(jax.jit, static_argnames=("linear", "transposed"))
def _eager(x: Array, *tables: Array, linear: LinearMap, transposed: bool) -> Array:
    return _linear.bind(x, *tables, linear=linear, transposed=transposed)


def _jvp(primals: Sequence[Array], tangents: Sequence[Array | ad.Zero], **which: Any) -> tuple[Array, Array]:
    return _linear.bind(*primals, **which), _linear.bind(tangents[0], *primals[1:], **which)


def _transpose(cotangent: Array, x: Any, *tables: Array, linear: LinearMap,
               transposed: bool) -> list[Array | None]:
    return [_linear.bind(cotangent, *tables, linear=linear, transposed=not transposed), *[None] * len(tables)]


def _batch(operands: Sequence[Array], mapped: Sequence[Any], **which: Any) -> tuple[Array, int]:
    """The mapped axis folds into the columns; where tables are mapped too, each has its own call."""
    x, *tables = operands
    if any(m is not None for m in mapped[1:]):
        return jax.vmap(functools.partial(_plain, **which), mapped)(*operands), 0
    if which["linear"].columns == 0:
        x = jnp.moveaxis(x, mapped[0], 0)
        y = _linear.bind(x.reshape(-1, *x.shape[2:]), *tables, **which)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0
    x = jnp.moveaxis(x, mapped[0], -1)
    y = _linear.bind(x.reshape(*x.shape[:-2], -1), *tables, **which)
    return y.reshape(*y.shape[:-1], *x.shape[-2:]), y.ndim


_linear = Primitive("linear_map")
_linear.def_impl(_eager)
_linear.def_abstract_eval(_abstract)
ad.primitive_jvps[_linear] = _jvp
ad.primitive_transposes[_linear] = _transpose
batching.primitive_batchers[_linear] = _batch
# What a map holds may ask for the devices when it is lowered, as the partitioned FFT does; JAX has no public way to say so.
dispatch.prim_requires_devices_during_lowering.add(_linear)
mlir.register_lowering(_linear, mlir.lower_fun(_plain, multiple_results=False), cacheable=False)
