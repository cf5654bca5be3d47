"""Filtered back-projection: Ramachandran and Lakshminarayanan 1971; fan and cone after Feldkamp 1984, Parker 1982."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from medjax.physics.rays import take, zeros
from medjax.types import UserError

WINDOWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ramp": np.ones_like,
    "shepp-logan": np.sinc,
    "cosine": lambda f: np.cos(np.pi * f),
    "hann": lambda f: 0.5 + 0.5 * np.cos(2 * np.pi * f),
}
"""Filter windows over frequency in cycles per detector, -0.5 … 0.5."""


def planar(geometry: Any, sinogram: Float[Array, "v d n"], filter: str) -> Float[Array, "h w n"]:
    """The image in attenuation per mm, of a `Parallel` or `Fan` sinogram.

    Every pixel looks up its place on the detector in every view, between two elements by linear interpolation. The
    transposed projector, which weighs the rays unevenly, would ripple by 3 % about the axis.
    """
    check_detector(geometry)
    weights = view_weights(geometry)[:, None] * redundancy(geometry) * obliquity(geometry)
    weighted = sinogram * jnp.asarray(weights, jnp.float32)[..., None]
    filtered = jnp.einsum("ed,vdn->ven", toeplitz(geometry, filter), weighted, precision="highest")
    return _back_project(geometry, filtered)


def _back_project(geometry: Any, filtered: Float[Array, "v d n"]) -> Float[Array, "h w n"]:
    """Every view at each pixel's place on the detector, linearly interpolated; 0 beside the detector."""
    (rows, columns), (dy, dx) = geometry.shape, geometry.spacing
    x = (jnp.arange(columns) - (columns - 1) / 2)[None, :] * dx
    y = ((rows - 1) / 2 - jnp.arange(rows))[:, None] * dy

    def add_view(image: Array, step: tuple[Array, Array, Array]) -> tuple[Array, None]:
        view, c, s = step
        at = jnp.clip(geometry.detector(c, s, x, y), -1, geometry.detectors)
        index = jnp.clip(jnp.floor(at).astype(jnp.int32), -1, geometry.detectors - 1)
        weight = (at - index)[..., None]
        seen = (1 - weight) * take(view, index + 1) + weight * take(view, index + 2)
        return image + seen * jnp.square(jnp.broadcast_to(geometry.magnification(c, s, x, y), at.shape))[..., None], None

    wide = jnp.pad(filtered, ((0, 0), (1, 1), (0, 0)))
    c, s = (jnp.asarray(f(geometry.angles), jnp.float32) for f in (np.cos, np.sin))
    return lax.scan(add_view, zeros((rows, columns, filtered.shape[-1]), filtered), (wide, c, s))[0]


def toeplitz(geometry: Any, filter: str) -> Float[Array, "d d"]:
    """The ramp filter as a matrix over detectors, `(D, D)`, per mm at the axis."""
    if filter not in WINDOWS:
        raise UserError("fbp.filter", f"unknown {filter!r}; choose from {', '.join(WINDOWS)}")
    count = geometry.detectors
    size = 4 * count
    n = np.arange(size)
    n = np.where(n < size // 2, n, n - size)  # whole numbers, which `fftfreq(size, 1 / size)` misses by a rounding
    kernel = np.where(n % 2 == 1, -1 / (np.pi * np.where(n == 0, 1, n)) ** 2, 0)
    kernel[0] = 0.25
    kernel = np.fft.ifft(np.fft.fft(kernel) * WINDOWS[filter](np.fft.fftfreq(size))).real / geometry.pitch_mm
    if getattr(geometry, "curved", False):
        gamma = n * geometry.detector_mm / geometry.detector_distance_mm
        kernel /= np.sinc(gamma / np.pi) ** 2
    i = jnp.arange(count)
    return jnp.asarray(kernel, jnp.float32)[i[:, None] - i[None, :]]


def check_detector(geometry: Any) -> None:
    """Raises UserError for a detector that covers the image on one side of the axis only: its views are cut off there."""
    near, far = sorted(np.abs(geometry.distances_mm[[0, -1]]))
    if near < geometry.radius_mm - geometry.pitch_mm and far - near > 4 * geometry.pitch_mm:
        raise UserError("ct.shift_mm", f"the detector reaches {far:.4g} mm from the axis on one side, {near:.4g} mm on the "
                        "other; filtered back-projection needs both alike: reconstruct iteratively")


def obliquity(geometry: Any) -> Float[np.ndarray, "1 d"]:
    """The cosine of each detector's angle to the central ray, `(1, D)`."""
    return np.cos(geometry.fan_angles)[None, :]


def view_weights(geometry: Any) -> Float[np.ndarray, " v"]:
    """The angle in radians for which each view stands; gaps of a limited scan stand for nothing."""
    weights, _, _ = _gaps(geometry.angles, geometry.period)
    return weights


def redundancy(geometry: Any) -> np.ndarray:
    """The weight of each ray, `(V, D)`; those of the two rays along one line, from either end, add up to 1.

    A full circle of fan beams measures each line twice. A short scan has smooth weights (Parker 1982), of any span (Silver
    2000); below the complete span some lines are missing, and the image is that of a limited angle.
    """
    if geometry.period == np.pi:
        return np.ones((1, 1))
    _, start, span = _gaps(geometry.angles, geometry.period)
    if span > 2 * np.pi - 1e-6:
        return np.full((1, 1), 0.5)
    gamma = geometry.fan_angles[None, :]
    beta = np.mod(np.asarray(geometry.angles) - start + 1e-9, 2 * np.pi)[:, None]
    delta = (span - np.pi) / 2
    first, last = 2 * (delta + gamma), span - 2 * (delta - gamma)  # before and after these angles a line is measured twice
    rise = np.sin(np.pi / 2 * np.clip(beta / np.maximum(first, 1e-9), 0, 1)) ** 2
    fall = np.sin(np.pi / 2 * np.clip((span - beta) / np.maximum(span - last, 1e-9), 0, 1)) ** 2
    return np.where(beta < first, rise, np.where(beta <= last, 1.0, fall))


def _gaps(angles: Sequence[float] | np.ndarray, period: float) -> tuple[np.ndarray, float, float]:
    """Half the way to both neighbours on a circle of `period`; where the scan starts, and how far it goes."""
    turned = np.round(np.mod(angles, period), 9) % np.round(period, 9)
    places, which, counts = np.unique(turned, return_inverse=True, return_counts=True)
    gaps = np.diff(places, append=places[0] + period)
    usual, widest = np.median(gaps), int(gaps.argmax())
    span = period
    if gaps[widest] > 4 * usual:
        span = period - gaps[widest] + usual
        gaps[widest] = usual
    weights = (gaps + np.roll(gaps, 1)) / 2
    start = places[(widest + 1) % len(places)]
    return (weights / counts)[which], start, span
