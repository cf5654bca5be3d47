"""The one door for every convolution in medjax, N-d, channels last."""

from collections.abc import Sequence

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
