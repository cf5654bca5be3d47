"""Joseph's interpolation seen from a pixel: which detectors it meets in a view, and with what weights.

The rays that cross a row between a pixel's left and right neighbour have detector indices between the neighbours'.
Indices count from 1, so that 0 and one past the last stand for rays beside the detector.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from medjax.physics.rays import Lines, bits_for, hat, position, take

Met = Iterator[tuple[Int[Array, "h w"], Float[Array, "h w"]]]


@runtime_checkable
class Footprint(Protocol):
    """Of a sweep's views; `taps` detectors at most meet a pixel. A scan over `tables` goes through the views."""

    @property
    def taps(self) -> int: ...

    @property
    def tables(self) -> Any: ...

    def meet(self, tables: Any, i: Int[Array, "h 1"], j: Int[Array, "1 w"]) -> Met:
        """One view's detectors and weights for the pixels of rows `i` and columns `j`, counted from the middle ones."""
        ...


@dataclass(frozen=True)
class Affine:
    """Of parallel rays: the detector index is the sum of a row's and a column's part, both in fixed point.

    `pixel` is the width of a pixel in detectors, fixed point `(views,)`.
    """

    across: np.ndarray
    along: np.ndarray
    pixel: np.ndarray
    detectors: int
    bits: int
    taps: int

    @classmethod
    def of(cls, index: Callable[..., np.ndarray], shape: tuple[int, int], detectors: int) -> "Affine":
        """From the detector index `(views, h, w)` at row `i` and column `j` from the middle ones, in float64."""
        i, j = (np.arange(n) - n // 2 for n in shape)
        zero = np.zeros((1, 1, 1))
        origin = index(zero, zero)
        along, across = index(zero, j[None, None].astype(float)), index(i[None, :, None].astype(float), zero) - origin
        pixel = np.abs(index(zero, np.ones((1, 1, 1))) - origin)
        bits = bits_for(np.abs(along).max() + np.abs(across).max() + pixel.max() + 1)
        fixed = [np.round(t * 2.0**bits).astype(np.int32) for t in (across, along, pixel)]
        return cls(fixed[0], fixed[1], fixed[2][:, 0, 0], detectors, bits, int(np.ceil(2 * pixel.max() - 1e-9)))

    @property
    def tables(self) -> tuple[np.ndarray, ...]:
        """What a view needs."""
        return self.across, self.along, self.pixel, (1 / self.pixel).astype(np.float32)

    def meet(self, tables: Any, i: Int[Array, "h 1"], j: Int[Array, "1 w"]) -> Met:
        """As `Footprint`; `i` and `j` are all rows and columns."""
        across, along, pixel, per_pixel = tables
        at = across + along
        first = ((at - pixel) >> self.bits) + 1
        for tap in range(self.taps):
            away = ((first + tap) << self.bits) - at
            weight = jnp.maximum(1 - jnp.abs(away.astype(jnp.float32)) * per_pixel, 0)
            yield jnp.clip(first + tap, -1, self.detectors) + 1, weight


@dataclass(frozen=True)
class Projective:
    """Of rays from a point: `index` finds the detectors in float32, within `slack`, the rays' `lines` their weights."""

    lines: Lines
    index: Callable[..., Array]
    cos: np.ndarray
    sin: np.ndarray
    detectors: int
    taps: int
    slack: float = 0.01

    @classmethod
    def of(cls, lines: Lines, index: Callable[..., Any], cos: np.ndarray, sin: np.ndarray, shape: tuple[int, int],
           detectors: int) -> "Projective":
        """`index(cos, sin, i, j)` takes NumPy and JAX arrays."""
        i, j = (np.unique(np.linspace(0, n - 1, 33)) - n // 2 for n in shape)
        c, s = cos[:, None, None], sin[:, None, None]
        spread = np.diff([index(c, s, i[:, None], j[None] + k) for k in (-1, 1)], axis=0)
        taps = int(np.ceil(np.abs(spread).max() + 2 * cls.slack))
        return cls(lines, index, cos.astype(np.float32), sin.astype(np.float32), detectors, taps)

    @property
    def tables(self) -> tuple[np.ndarray, ...]:
        """What a view needs."""
        return *(np.pad(t, ((0, 0), (1, 1)), mode="edge") for t in self.lines.tables), self.cos, self.sin

    def meet(self, tables: Any, i: Int[Array, "h 1"], j: Int[Array, "1 w"]) -> Met:
        """As `Footprint`."""
        left, right = (self.index(*tables[3:], i, j + k) for k in (-1, 1))
        first = jnp.floor(jnp.minimum(left, right) - self.slack).astype(jnp.int32) + 1
        bits = self.lines.bits
        for tap in range(self.taps):
            detector = jnp.clip(first + tap, -1, self.detectors) + 1
            at = position(tuple(take(t, detector) for t in tables[:3]), i)
            yield detector, hat(at - (j << bits), bits)
