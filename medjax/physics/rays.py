"""Rays through an image in fixed point: forward and adjoint see the same integers, hence the same weights.

A ray that runs mostly along y meets row `i` at the column `position(i)`, linear in `i`. In float32 the column and its
fraction could be rounded apart, and near column 500 the fraction keeps five digits; as int32 with `bits` fractional
bits both are exact on every device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

Values = TypeVar("Values", np.ndarray, Array)  # on the host while tables are made, on the device in a scan

_EXTRA_BITS = 10


@dataclass(frozen=True)
class Lines:
    """Linear functions of an integer `i`, centred: `start + slope * i + (slope_rest * i >> 10)`, int32.

    The tables broadcast against each other: rays of one view that are parallel share their slope, `(views, 1)`.
    """

    start: np.ndarray
    slope: np.ndarray
    slope_rest: np.ndarray
    bits: int

    @classmethod
    def of(cls, start: np.ndarray, slope: np.ndarray, bits: int) -> "Lines":
        """From float64 values, rounded to `bits` fractional bits (10 more for the slope)."""
        fine = np.round(slope * 2.0 ** (bits + _EXTRA_BITS)).astype(np.int64)
        coarse = fine >> _EXTRA_BITS
        return cls(np.round(start * 2.0**bits).astype(np.int32), coarse.astype(np.int32),
                   (fine - (coarse << _EXTRA_BITS)).astype(np.int32), bits)

    @property
    def tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The three tables, as scans and gathers take them."""
        return self.start, self.slope, self.slope_rest


def position(tables: Sequence[Array], i: Int[Array, "..."]) -> Int[Array, "..."]:
    """The lines' values at `i`, in fixed point."""
    start, slope, rest = tables
    return start + (slope * i + ((rest * i) >> _EXTRA_BITS))


def fraction(position: Int[Array, "..."], bits: int) -> Array:
    """What a fixed-point position has beyond its whole part, 0 … 1, float32."""
    return (position & (2**bits - 1)).astype(jnp.float32) * 2.0**-bits


def hat(distance: Int[Array, "..."], bits: int) -> Array:
    """The linear interpolation weight at a fixed-point distance, float32."""
    return jnp.maximum(1 - jnp.abs(distance.astype(jnp.float32)) * 2.0**-bits, 0)


def bits_for(reach: float) -> int:
    """The most fractional bits with which int32 holds positions up to `reach` either side."""
    return 30 - int(np.floor(np.log2(reach + 1)))


def centred(n: int) -> Int[Array, " n"]:
    """Indices counted from the middle one, `n // 2`."""
    return jnp.arange(n, dtype=jnp.int32) - n // 2


def take(table: Array, index: Int[Array, "..."]) -> Array:
    """Rows of a table by indices that are known to lie inside."""
    return table.at[index].get(mode="promise_in_bounds")


def zeros(shape: tuple[Any, ...], like: Array) -> Array:  # whole numbers, or symbols of JAX while a program is exported
    """Zeros that vary over the manual mesh axes over which `like` varies, as a scan inside `shard_map` needs them."""
    start, axes = jnp.zeros(shape, like.dtype), tuple(jax.typeof(like).mat.varying)
    return lax.pcast(start, axes, to="varying") if axes else start
