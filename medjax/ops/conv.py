"""The one door for every convolution in medjax, N-d, channels last."""

from collections.abc import Sequence

import jax
from jax import lax

from medjax.types import Array


def conv(x: Array, w: Array, *, stride: int | Sequence[int] = 1, dilation: int | Sequence[int] = 1,
         padding: str | Sequence[tuple[int, int]] = "SAME", groups: int = 1) -> Array:
    """Convolution of `x` `(B, *space, C_in)` by `w` `(*kernel, C_in/groups, C_out)`."""
    n = x.ndim - 2
    space = "DHW"[-n:]
    numbers = (f"N{space}C", f"{space}IO", f"N{space}C")
    stride, dilation = ((v,) * n if isinstance(v, int) else tuple(v) for v in (stride, dilation))
    return lax.conv_general_dilated(x, w, stride, padding, rhs_dilation=dilation, dimension_numbers=numbers,
                                    feature_group_count=groups)


def conv_transpose(x: Array, w: Array, *, stride: int | Sequence[int] = 1, dilation: int | Sequence[int] = 1,
                   padding: str | Sequence[tuple[int, int]] = "SAME", groups: int = 1) -> Array:
    """The adjoint of `conv` in its first argument: `x` `(B, *space, C_in)`, `w` `(*kernel, C_out/groups, C_in)`.

    "SAME" makes `space * stride`; "VALID" and pairs make the smallest size that `conv` maps onto `space`.
    """
    n = x.ndim - 2
    stride, dilation = ((v,) * n if isinstance(v, int) else tuple(v) for v in (stride, dilation))
    if padding == "SAME":
        space = [size * s for size, s in zip(x.shape[1:-1], stride, strict=True)]
    else:
        pads = [(0, 0)] * n if padding == "VALID" else padding
        space = [(size - 1) * s + (k - 1) * d + 1 - lo - hi for size, s, k, d, (lo, hi)
                 in zip(x.shape[1:-1], stride, w.shape[:n], dilation, pads, strict=True)]
    out = jax.ShapeDtypeStruct((x.shape[0], *space, w.shape[-2] * groups), x.dtype)
    forward = lambda y: conv(y, w, stride=stride, dilation=dilation, padding=padding, groups=groups)
    return jax.linear_transpose(forward, out)(x)[0]
