"""Convolutions and their two adjoints by XLA's own: what other devices than one CPU run, and what exported programs hold.

Geometry is that of `medjax.ops.conv`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from medjax.types import Array

Sizes = tuple[int, ...]
Size = Any  # of an image: an int, or a symbol of JAX while a program is exported for several sizes
Shape = tuple[Size, ...]
Pairs = tuple[tuple[int, int], ...]


def forward_xla(x: Array, w: Array, *, stride: Sizes, dilation: Sizes, padding: Pairs, groups: int,
                 precision: str | None) -> Array:
    """`y` of `x` and `w`."""
    return _convolve(x, w, stride, padding, (1,) * len(padding), dilation, groups, precision)


def _convolve(x: Array, w: Array, stride: Sizes, padding: Sequence[tuple[int, int]], spread: Sizes, dilation: Sizes,
              groups: int, precision: str | None) -> Array:
    """XLA's convolution of `x`, dilated by `spread`, with a kernel dilated by `dilation`.

    Where the result is shorter than the kernel along the first axis, more of it is computed and cut off again. XLA's
    partitioner (0.10) would take it for a weight gradient; where that axis and the batch are split over devices, it sums
    over all of them, and the result is as many times too large as there are parts of the batch.
    """
    low, high = padding[0]
    reach = (w.shape[0] - 1) * dilation[0]
    rows = ((x.shape[1] - 1) * spread[0] + low + high - reach) // stride[0] + 1
    more = max(0, reach + 1 - rows) if isinstance(rows, int) and rows > 0 else 0
    image = _letters(x)
    found = lax.conv_general_dilated(x, w, stride, [(low, high + more * stride[0]), *padding[1:]], lhs_dilation=spread,
                                     rhs_dilation=dilation, feature_group_count=groups, precision=precision,
                                     dimension_numbers=(image, image[1:-1] + "IO", image))
    return lax.slice_in_dim(found, 0, rows, axis=1) if more else found


def forward_in_planes(x: Array, w: Array, *, stride: Sizes, dilation: Sizes, padding: Pairs, **others: Any) -> Array:
    """The convolution of volumes as a sum of 2-D ones, of which each takes one plane of the kernel."""
    if any(padding[0]):
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (*padding[0], 0), *[(0, 0, 0)] * 3])
    count = (x.shape[1] - (w.shape[0] - 1) * dilation[0] - 1) // stride[0] + 1
    found = []
    for number in range(w.shape[0]):
        first = number * dilation[0]
        part = lax.slice_in_dim(x, first, first + (count - 1) * stride[0] + 1, stride[0], 1)
        found.append(forward_xla(part.reshape(-1, *part.shape[2:]), w[number], stride=stride[1:], dilation=dilation[1:],
                                  padding=padding[1:], **others))
    return functools.reduce(jnp.add, found).reshape(x.shape[0], count, *found[0].shape[1:])


def data_xla(y: Array, w: Array, *, space: Shape, stride: Sizes, dilation: Sizes, padding: Pairs, groups: int,
              precision: str | None) -> Array:
    """The adjoint in `x`: an image of `space` from `y` and `w`."""
    pads = []
    for size, out, k, s, d, (low, _) in zip(space, y.shape[1:-1], w.shape, stride, dilation, padding, strict=False):
        reach = (k - 1) * d
        pads.append((reach - low, size + low - (out - 1) * s - 1))
    w = split_axis(w, -1, groups)
    w = jnp.moveaxis(w, (-3, -2, -1), (-1, -2, -3)).reshape(*w.shape[:-3], w.shape[-1], -1)
    flipped = lax.rev(w, tuple(range(len(pads))))
    return _convolve(y, flipped, (1,) * len(pads), pads, stride, dilation, groups, precision)


def weights_xla(x: Array, y: Array, *, kernel: Sizes, stride: Sizes, dilation: Sizes, padding: Pairs, groups: int,
                 precision: str | None) -> Array:
    """The adjoint in `w`: of size `kernel`, from `x` and `y`."""
    space = _letters(x)[1:-1]
    pads = []
    for size, out, k, s, d, (low, _) in zip(x.shape[1:-1], y.shape[1:-1], kernel, stride, dilation, padding, strict=True):
        pads.append((low, (k - 1) * d + (out - 1) * s + 1 - size - low))
    return lax.conv_general_dilated(x, y, dilation, pads, rhs_dilation=stride, batch_group_count=groups,
                                    dimension_numbers=(f"C{space}N", f"I{space}O", f"{space}NC"), precision=precision)


def _letters(image: Array) -> str:
    return "N" + "DHW"[5 - image.ndim:] + "C"


def split_axis(v: Array, axis: int, groups: int) -> Array:
    """`v` with its axis `groups * n` made two, groups first."""
    axis %= v.ndim
    return v.reshape(*v.shape[:axis], groups, v.shape[axis] // groups, *v.shape[axis + 1:])
