"""Orthonormal wavelet transforms of periodic signals (Mallat 1989), N-d and jitted; the filters are PyWavelets'."""

import functools

import jax.numpy as jnp
import numpy as np
import pywt
from jaxtyping import Array, Float, Inexact

from medjax.ops.separable import correlate_axis, pad_axis
from medjax.types import UserError


def forward(x: Inexact[Array, "*s"], axes: tuple[int, ...], levels: int, name: str = "db4") -> Inexact[Array, "*s"]:
    """Wavelet coefficients in the place of the signal: along each of `axes` the coarse half lies first.

    The sizes along `axes` are multiples of `2 ** levels` (`UserError`).
    """
    for size in (x.shape[a] for a in axes):
        if size % 2**levels:
            raise UserError("wavelet.levels", f"{levels} levels need multiples of {2**levels}, not {size}; pad it")
    for axis in axes:
        x = _split(x, axis, _filters(name))
    if levels > 1:
        coarse = _coarse(x, axes)
        x = x.at[coarse].set(forward(x[coarse], axes, levels - 1, name))
    return x


def inverse(coefficients: Inexact[Array, "*s"], axes: tuple[int, ...], levels: int,
            name: str = "db4") -> Inexact[Array, "*s"]:
    """The signal of its `forward` coefficients; also the transpose of `forward`."""
    if levels > 1:
        coarse = _coarse(coefficients, axes)
        coefficients = coefficients.at[coarse].set(inverse(coefficients[coarse], axes, levels - 1, name))
    for axis in axes:
        coefficients = _merge(coefficients, axis, _filters(name))
    return coefficients


def shrink(coefficients: Inexact[Array, "*s"], threshold: Array | float) -> Inexact[Array, "*s"]:
    """Soft thresholding: magnitudes fall by `threshold`, to no less than 0."""
    magnitude = jnp.abs(coefficients)
    return coefficients * (jnp.maximum(magnitude - threshold, 0) / jnp.maximum(magnitude, jnp.finfo(magnitude.dtype).tiny))


def _coarse(x: Array, axes: tuple[int, ...]) -> tuple[slice, ...]:
    """The index of the coarse band."""
    halved = {a % x.ndim for a in axes}
    return tuple(slice(0, n // 2) if a in halved else slice(None) for a, n in enumerate(x.shape))


@functools.cache
def _filters(name: str) -> Float[np.ndarray, "2 taps"]:
    """The low and the high pass, `(2, taps)`."""
    if name not in pywt.wavelist(kind="discrete") or not pywt.Wavelet(name).orthogonal:
        raise UserError("wavelet.name", f"no orthogonal wavelet {name!r}; take haar, db2 …, sym2 … or coif1 …")
    wavelet = pywt.Wavelet(name)
    return np.asarray([wavelet.rec_lo, wavelet.rec_hi], np.float32)


def _split(x: Inexact[Array, "*s"], axis: int, filters: Float[np.ndarray, "2 taps"]) -> Inexact[Array, "*s"]:
    """Low and high band, one after the other: every other sample of two correlations with the centred filters."""
    before, after = _reach(filters)
    wide = _wrap(x, before, after, axis)
    return jnp.concatenate([correlate_axis(wide, taps, axis, stride=2) for taps in filters], axis)


def _merge(x: Inexact[Array, "*s"], axis: int, filters: Float[np.ndarray, "2 taps"]) -> Inexact[Array, "*s"]:
    """The transpose of `_split`: even and odd samples, each from every other tap."""
    axis %= x.ndim
    before, _ = _reach(filters)
    phases = []
    for phase in (0, 1):
        # Sample 2 i + phase met tap k = 2 i + phase + before - 2 j of coefficient j.
        first = (phase + before) % 2
        reach, ahead = filters[:, first::2].shape[1] - 1, (phase + before - first) // 2
        phases.append(sum(correlate_axis(_wrap(band, reach - ahead, ahead, axis), taps[first::2][::-1], axis)
                          for band, taps in zip(jnp.split(x, 2, axis), filters, strict=True)))
    return jnp.stack(phases, axis + 1).reshape(x.shape)


def _reach(filters: Float[np.ndarray, "2 taps"]) -> tuple[int, int]:
    """How far the centred filters reach before and after a pair of samples."""
    taps = filters.shape[1]
    return taps // 2 - 1, taps - 2 - (taps // 2 - 1)


def _wrap(x: Inexact[Array, "*s"], before: int, after: int, axis: int) -> Inexact[Array, "*t"]:
    """`x` continued periodically, also where it is shorter than the filter."""
    return pad_axis(x, before, after, axis, "wrap") if before or after else x
