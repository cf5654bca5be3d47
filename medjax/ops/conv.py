"""Every convolution in medjax, N-d, channels last.

A convolution is a bilinear map of an image `x` and a kernel `w` to an image `y`. It and the two adjoints of it,
`x` from `(y, w)` and `w` from `(x, y)`, are three primitives. Each is bilinear, and its transposes are the other two,
so every derivative of any order stays among the three. On one CPU device they call oneDNN, elsewhere XLA.
The environment variable MEDJAX_CONV=xla|onednn, read when a program is compiled, overrides the choice. Programs that
are exported are traced inside `jax_convolutions()`.
"""

import contextlib
import contextvars
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from medjax import native
from medjax.ops._conv_xla import (
    Pairs,
    Shape,
    Size,
    Sizes,
    data_xla,
    forward_in_planes,
    forward_xla,
    split_axis,
    weights_xla,
)
from medjax.types import Array, UserError

Lowered = Sequence[mlir.Value | Sequence[mlir.Value]]
Unknown = Any  # the operand of a transpose that is solved for: a placeholder of JAX that has an `aval`
Attributes = Callable[[dict[str, Any]], dict[str, Any]]
Axis = tuple[int, bool]  # of an operand or a result, and whether its indices are grouped
Folds = tuple[tuple[Axis, Axis], tuple[Axis, Axis]]  # for each operand: into which axis of it, and of the result

_in_jax: contextvars.ContextVar[Literal["", "any", "planes"]] = contextvars.ContextVar("in_jax", default="")


@contextlib.contextmanager
def jax_convolutions(planes: bool = False) -> Iterator[None]:
    """What is traced inside has JAX's own convolutions in the place of this module's primitives.

    A program for other machines needs it: one for several platforms can't be lowered from primitives that differ between
    them (jax 0.10), and converters to other formats know JAX's primitives alone. Its derivatives are slower on CPU. With
    `planes` volumes are convolved by 2-D convolutions alone, on every platform.
    """
    token = _in_jax.set("planes" if planes else "any")
    try:
        yield
    finally:
        _in_jax.reset(token)


def conv(x: Array, w: Array, *, bias: Array | None = None, stride: int | Sequence[int] = 1,
         dilation: int | Sequence[int] = 1, padding: str | Sequence[tuple[int, int]] = "SAME", groups: int = 1,
         leak: float = 1.0, precision: str | None = None) -> Array:
    """Convolution of `x` `(B, *space, C_in)` by `w` `(*kernel, C_in/groups, C_out)`, as networks define it.

    One to three axes of space. `padding` is "SAME" (space / stride, rounded up), "VALID" or `(low, high)` per axis.
    `bias` `(C_out,)` may be wider than `x` and `w`, whose dtype the result has. Negative values are then multiplied by
    `leak`, 0 to 1: 0 is relu. Both cost nothing on CPU. `precision` is that of `jax.lax`, on accelerators and in all
    derivatives: "highest" keeps float32 where None may round to TF32 or bfloat16. Raises UserError where shapes do not fit.
    """
    stride, dilation = _per_axis(x, w, stride), _per_axis(x, w, dilation)
    if x.shape[-1] != w.shape[-2] * groups or w.shape[-1] % groups:
        raise UserError("conv", f"{x.shape[-1]} channels do not fit a kernel {w.shape} with groups={groups}")
    padding = _pairs(padding, x.shape[1:-1], w.shape[:-2], stride, dilation)
    geometry = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups, "precision": precision}
    if bias is None and leak == 1:
        return _bind(_forward, x, w, **geometry)
    bias = jnp.zeros(w.shape[-1], jnp.float32) if bias is None else bias
    wide = functools.reduce(jnp.promote_types, (x.dtype, w.dtype, jnp.float32))
    x, w, bias = _alike(x, w, bias.astype(wide))
    if _in_jax.get():
        return _biased_in_steps(x, w, bias, leak=leak, **geometry)
    return _convolve_biased(x, w, bias, leak, tuple(geometry.items()))


def conv_transpose(x: Array, w: Array, *, bias: Array | None = None, stride: int | Sequence[int] = 1,
                   dilation: int | Sequence[int] = 1, padding: str | Sequence[tuple[int, int]] = "SAME",
                   groups: int = 1, precision: str | None = None) -> Array:
    """The adjoint of `conv` in its first argument: `x` `(B, *space, C_in)`, `w` `(*kernel, C_out/groups, C_in)`.

    "SAME" makes `space * stride`; "VALID" and pairs make the smallest space that `conv` maps onto that of `x`.
    `bias` and `precision` as in `conv`. Raises UserError where shapes do not fit.
    """
    stride, dilation = _per_axis(x, w, stride), _per_axis(x, w, dilation)
    if x.shape[-1] != w.shape[-1] or w.shape[-1] % groups:
        raise UserError("conv_transpose", f"{x.shape[-1]} channels do not fit a kernel {w.shape} with groups={groups}")
    if padding == "SAME":
        space = tuple(size * s for size, s in zip(x.shape[1:-1], stride, strict=True))
        padding = _pairs(padding, space, w.shape[:-2], stride, dilation)
    else:
        padding = _pairs(padding, x.shape[1:-1], w.shape[:-2], stride, dilation)
        space = tuple((size - 1) * s + (k - 1) * d + 1 - low - high for size, k, s, d, (low, high)
                      in zip(x.shape[1:-1], w.shape[:-2], stride, dilation, padding, strict=True))
    y = _bind(_data, x, w, space=space, stride=stride, dilation=dilation, padding=padding, groups=groups,
              precision=precision)
    return y if bias is None else _add_bias(y, bias)


def _add_bias(y: Array, bias: Array) -> Array:
    """In float32 at least: on CPU the sum that is the gradient of a bfloat16 bias takes XLA a hundred times longer."""
    wide = jnp.promote_types(y.dtype, jnp.float32)
    return (y.astype(wide) + bias.astype(wide).reshape((1,) * (y.ndim - 1) + bias.shape)).astype(y.dtype)


def _per_axis(x: Array, w: Array, value: int | Sequence[int]) -> tuple[int, ...]:
    n = x.ndim - 2
    values = (value,) * n if isinstance(value, int) else tuple(value)
    if not 1 <= n <= 3 or w.ndim != x.ndim or len(values) != n:
        raise UserError("conv", f"image {x.shape}, kernel {w.shape} and {value} per axis of space do not fit; "
                        "images are (B, *space, C) with 1-3 axes of space, kernels (*kernel, C_in/groups, C_out)")
    return values


def _pairs(padding: str | Sequence[tuple[int, int]], space: Sequence[Size], kernel: Sequence[int],
           stride: Sequence[int], dilation: Sequence[int]) -> Pairs:
    if padding == "SAME":
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        totals = [max(-(-size // s) * s - s + r - size, 0) for size, r, s in zip(space, reach, stride, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    if padding == "VALID":
        return ((0, 0),) * len(space)
    if isinstance(padding, str) or len(padding) != len(space):
        raise UserError("conv", f"padding {padding!r} is not SAME, VALID or one (low, high) per axis of space")
    return tuple((int(low), int(high)) for low, high in padding)


def _bind(primitive: Primitive, a: Array, b: Array, **geometry: Any) -> Array:
    in_jax = _IN_JAX[primitive] if _in_jax.get() else None
    return (in_jax or primitive.bind)(*_alike(a, b), **geometry)


def _alike(a: Array, b: Array, *others: Array) -> list[Array]:
    """One dtype for `a` and `b`, and inside `shard_map` one set of varying axes: without it gradients are silently wrong."""
    dtype = jnp.promote_types(a.dtype, b.dtype)
    operands = (a.astype(dtype), b.astype(dtype), *others)
    varying = [jax.typeof(v).mat.varying for v in operands]
    axes = frozenset().union(*varying)
    return [lax.pcast(v, tuple(axes - own), to="varying") for v, own in zip(operands, varying, strict=True)]


# The three primitives. Geometry is static: `stride`, `dilation`, `padding`, `groups`, `precision`, and what the operands
# do not tell of the result's shape: `space` of an image, `kernel` of a kernel.


def _forward_shape(x: ShapedArray, w: ShapedArray, *, stride: Sizes, dilation: Sizes, padding: Pairs, **_: Any) -> Shape:
    space = tuple((size + low + high - (k - 1) * d - 1) // s + 1 for size, k, s, d, (low, high)
                  in zip(x.shape[1:-1], w.shape[:-2], stride, dilation, padding, strict=True))
    return (x.shape[0], *(max(size, 0) for size in space), w.shape[-1])


def _data_shape(y: ShapedArray, w: ShapedArray, *, space: Shape, groups: int, **_: Any) -> Shape:
    return (y.shape[0], *space, w.shape[-2] * groups)


def _weights_shape(x: ShapedArray, y: ShapedArray, *, kernel: Sizes, groups: int, **_: Any) -> Shape:
    return (*kernel, x.shape[-1] // groups, y.shape[-1])


def _forward_in_jax(x: Array, w: Array, **geometry: Any) -> Array:
    """In planes on CPU, where XLA's own convolution of volumes takes five times as long, and where the kernel is flat."""
    if x.ndim < 5:
        return forward_xla(x, w, **geometry)
    in_planes: Callable[[Array, Array], Array] = functools.partial(forward_in_planes, **geometry)
    if _in_jax.get() == "planes" or w.shape[0] == 1:
        return in_planes(x, w)
    return lax.platform_dependent(x, w, cpu=in_planes, default=functools.partial(forward_xla, **geometry))


# Lowering on CPU: oneDNN where one device, or one shard, runs the whole convolution.


def _lower_on_cpu(primitive: Primitive, in_xla: mlir.LoweringRule, target: str, attributes: Attributes,
                  ctx: mlir.LoweringRuleContext, *operands: mlir.Value, **geometry: Any) -> Lowered:
    arguments, results = ([a for a in avals if isinstance(a, ShapedArray)] for avals in (ctx.avals_in, ctx.avals_out))
    if not _onednn_fits([*arguments, *results], ctx, geometry):
        return in_xla(ctx, *operands, **geometry)
    if arguments[0].dtype == jnp.bfloat16 and not _bfloat16_fits(*arguments, **geometry):
        in_float32 = functools.partial(_in_float32, primitive)
        return mlir.lower_fun(in_float32, multiple_results=False)(ctx, *operands, **geometry)
    low = [low for low, _ in geometry["padding"]]
    vectors = {k: np.asarray(v, np.int64) for k, v in
               (("stride", geometry["stride"]), ("dilation", geometry["dilation"]), ("low", low))}
    call = jax.ffi.ffi_lowering(target)
    return call(ctx, *operands, groups=np.int64(geometry["groups"]), **vectors, **attributes(geometry))


def _bfloat16_fits(x: ShapedArray, y: ShapedArray, *_: ShapedArray, dilation: Sizes, kernel: Sizes | None = None,
                   **__: Any) -> bool:
    """Whether oneDNN convolves bfloat16 on this processor, and rightly.

    Where a thread may get fewer slices of depth than the kernel reaches over, the weight gradient of volumes (3.2)
    adds what happened to lie in that thread's memory.
    """
    if not native.bfloat16():
        return False
    if kernel is None or y.ndim != 5:
        return True
    return min(y.shape[1], y.shape[0] * y.shape[1] // native.threads()) >= (kernel[0] - 1) * dilation[0] + 1


def _in_float32(primitive: Primitive, x: Array, w: Array, *bias: Array, **geometry: Any) -> Array:
    return primitive.bind(x.astype(jnp.float32), w.astype(jnp.float32), *bias, **geometry).astype(x.dtype)


def _onednn_fits(avals: Sequence[ShapedArray], ctx: mlir.LoweringRuleContext, geometry: dict[str, Any]) -> bool:
    static = all(isinstance(size, int) and size > 0 for aval in avals for size in aval.shape)
    inside = all(low >= 0 and high >= 0 for low, high in geometry["padding"])
    return (static and inside and avals[0].dtype in (jnp.float32, jnp.bfloat16)
            and not ctx.module_context.lowering_parameters.for_export
            and _devices_to_partition_over(ctx.module_context.axis_context) == 1 and _wants_onednn())


def _devices_to_partition_over(context: mlir.AxisContext) -> int:
    """How many devices XLA's partitioner may split the operation over; inside `shard_map` it is split already."""
    if isinstance(context, mlir.ShardingContext):
        return context.num_devices
    if isinstance(context, mlir.SPMDAxisContext):
        return math.prod(size for name, size in context.mesh.shape.items() if name not in context.manual_axes)
    return 1


def _wants_onednn() -> bool:
    wish = os.environ.get("MEDJAX_CONV", "")
    if wish not in ("", "xla", "onednn"):
        raise UserError("MEDJAX_CONV", f"{wish!r} is neither xla nor onednn")
    if wish == "onednn" and native.problem():
        raise UserError("MEDJAX_CONV", f"onednn can't be used: {native.problem()}")
    return wish != "xla" and native.available()


def _primitive(name: str, shape: Callable[..., Shape], xla: Callable[..., Array], target: str,
               attributes: Attributes) -> Primitive:
    primitive = Primitive(name)
    primitive.def_abstract_eval(lambda a, b, *_, **geometry: a.update(shape=shape(a, b, **geometry), weak_type=False))
    primitive.def_impl(functools.partial(_eager, primitive))
    in_xla = mlir.lower_fun(xla, multiple_results=False)
    on_cpu = functools.partial(_lower_on_cpu, primitive, in_xla, target, attributes)
    mlir.register_lowering(primitive, in_xla)
    mlir.register_lowering(primitive, on_cpu, platform="cpu", cacheable=False)
    return primitive


def _bilinear(name: str, shape: Callable[..., Shape], xla: Callable[..., Array], kind: int) -> Primitive:
    return _primitive(name, shape, xla, "medjax_convolve", lambda _: {"kind": np.int64(kind)})


def _eager(primitive: Primitive, *operands: Array, **geometry: Any) -> Array:
    return _jitted(primitive, tuple(geometry.items()))(*operands)


@functools.cache
def _jitted(primitive: Primitive, geometry: tuple[tuple[str, Any], ...]) -> Callable[..., Array]:
    return jax.jit(functools.partial(primitive.bind, **dict(geometry)))


_forward = _bilinear("conv", _forward_shape, forward_xla, 0)
_data = _bilinear("conv_data", _data_shape, data_xla, 1)
_weights = _bilinear("conv_weights", _weights_shape, weights_xla, 2)
_IN_JAX: dict[Primitive, Callable[..., Array]] = {_forward: _forward_in_jax, _data: data_xla, _weights: weights_xla}


# Derivatives: `defbilinear` wants, for each operand, the map from a cotangent of the result to one of the operand.


def _to_forward(y: Array, w: Array, geometry: dict[str, Any]) -> Array:
    return _bind(_forward, y, w, **{k: v for k, v in geometry.items() if k not in ("space", "kernel")})


def _to_data(y: Array, w: Array, x: Unknown, geometry: dict[str, Any]) -> Array:
    return _bind(_data, y, w, space=x.aval.shape[1:-1], **{k: v for k, v in geometry.items() if k != "kernel"})


def _to_weights(x: Array, y: Array, w: Unknown, geometry: dict[str, Any]) -> Array:
    return _bind(_weights, x, y, kernel=w.aval.shape[:-2], **{k: v for k, v in geometry.items() if k != "space"})


ad.defbilinear(_forward, lambda y, x, w, **g: _to_data(y, w, x, g), lambda y, x, w, **g: _to_weights(x, y, w, g))
ad.defbilinear(_data, lambda x, y, w, **g: _to_forward(x, w, g), lambda x, y, w, **g: _to_weights(x, y, w, g))
ad.defbilinear(_weights, lambda w, x, y, **g: _to_data(y, w, x, g), lambda w, x, y, **g: _to_forward(x, w, g))


# vmap: a mapped axis folds into the batch or the channels; where both operands are mapped, into groups.


def _batch(primitive: Primitive, folds: Folds, operands: Sequence[Array], mapped: Sequence[int | None],
           **geometry: Any) -> tuple[Array, int]:
    (n,) = {v.shape[at] for v, at in zip(operands, mapped, strict=True) if at is not None}
    groups = geometry["groups"]
    if None in mapped:
        which = 0 if mapped[1] is None else 1
        (axis, parts), (out_axis, out_parts) = [(axis, groups if grouped else 1) for axis, grouped in folds[which]]
        operands = list(operands)
        operands[which] = _fold(operands[which], mapped[which], axis, parts)
    else:
        operands = [_fold(v, at, -1, 1) for v, at in zip(operands, mapped, strict=True)]
        out_axis, out_parts, geometry["groups"] = -1, 1, n * groups
    return _unfold(_bind(primitive, *operands, **geometry), n, out_axis, out_parts), 0


def _fold(v: Array, at: int | None, axis: int, groups: int) -> Array:
    assert at is not None  # only mapped operands are folded
    v = jnp.moveaxis(v, at, 0)
    n, *shape = v.shape
    place = axis % len(shape)
    inside_groups = jnp.moveaxis(split_axis(v, place + 1, groups), 0, place + 1)
    return inside_groups.reshape(*shape[:place], n * shape[place], *shape[place + 1:])


def _unfold(v: Array, n: int, axis: int, groups: int) -> Array:
    place = axis % v.ndim
    size = v.shape[place] // n
    split = v.reshape(*v.shape[:place], groups, n, size // groups, *v.shape[place + 1:])
    return jnp.moveaxis(split, place + 1, 0).reshape(n, *v.shape[:place], size, *v.shape[place + 1:])


_batch_axis, _channels, _grouped_channels, _kernel_in = (0, False), (-1, False), (-1, True), (-2, False)
for _p, _folds in (
    (_forward, ((_batch_axis, _batch_axis), (_grouped_channels, _grouped_channels))),
    (_data, ((_batch_axis, _batch_axis), (_kernel_in, _grouped_channels))),
    (_weights, ((_grouped_channels, _kernel_in), (_grouped_channels, _grouped_channels))),
):
    batching.primitive_batchers[_p] = functools.partial(_batch, _p, _folds)


# A bias and relu come after the convolution in one pass over memory. Derivatives are those of the separate steps.


def _biased_in_steps(x: Array, w: Array, bias: Array, *, leak: float, **geometry: Any) -> Array:
    y = _add_bias(_bind(_forward, x, w, **geometry), bias)
    return y if leak == 1 else jnp.where(y > 0, y, leak * y)


_biased = _primitive("conv_biased", lambda x, w, leak, **geometry: _forward_shape(x, w, **geometry), _biased_in_steps,
                     "medjax_convolve_biased", lambda geometry: {"leak": np.float32(geometry["leak"])})
batching.primitive_batchers[_biased] = lambda operands, mapped, **geometry: (
    jax.vmap(functools.partial(_biased_in_steps, **geometry), mapped)(*operands), 0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _convolve_biased(x: Array, w: Array, bias: Array, leak: float, geometry: tuple[tuple[str, Any], ...]) -> Array:
    return _biased.bind(x, w, bias, leak=leak, **dict(geometry))


def _biased_jvp(leak: float, geometry: tuple[tuple[str, Any], ...], primals: tuple[Array, Array, Array],
                tangents: tuple[Array | SymbolicZero, ...]) -> tuple[Array, Array]:
    (x, w, bias), (dx, dw, dbias) = primals, tangents
    y = _convolve_biased(x, w, bias, leak, geometry)
    dy = jnp.zeros_like(y)
    if not isinstance(dx, SymbolicZero):
        dy += _bind(_forward, dx, w, **dict(geometry))
    if not isinstance(dw, SymbolicZero):
        dy += _bind(_forward, x, dw, **dict(geometry))
    if not isinstance(dbias, SymbolicZero):
        dy = _add_bias(dy, dbias)
    return y, dy if leak == 1 else jnp.where(y > 0, dy, leak * dy)


_convolve_biased.defjvp(_biased_jvp, symbolic_zeros=True)
