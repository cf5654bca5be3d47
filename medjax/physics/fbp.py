"""Filtered back-projection: Ramachandran and Lakshminarayanan 1971; fan and cone after Feldkamp 1984, Parker 1982."""

from collections.abc import Callable

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


def planar(geometry, sinogram: Float[Array, "v d n"], filter: str) -> Float[Array, "h w n"]:
    """The image in attenuation per mm, of a `Parallel` or `Fan` sinogram.

    Parallel rays at least as dense as the pixels go back by the adjoint, which weighs every ray that meets a pixel and
    shows less aliasing (0.3 dB on a head phantom) than looking two detectors up; smooth objects ripple by 2.5 % about the
    axis, where that would leave 0.5 %.
    """
    weights = view_weights(geometry)[:, None] * redundancy(geometry) * obliquity(geometry)
    weighted = sinogram * jnp.asarray(weights, jnp.float32)[..., None]
    filtered = jnp.einsum("ed,vdn->ven", toeplitz(geometry, filter), weighted, precision="highest")
    pixel = geometry.spacing
    if geometry.period == np.pi and geometry.pitch_mm <= min(pixel):
        return geometry.adjoint(filtered[None])[0] * (geometry.pitch_mm / (pixel[0] * pixel[1]))
    return _back_project(geometry, filtered)


def _back_project(geometry, filtered):
    """Every view looked up at each pixel's place on the detector, linearly interpolated."""
    (rows, columns), (dy, dx) = geometry.shape, geometry.spacing
    x = (jnp.arange(columns) - (columns - 1) / 2)[None, :] * dx
    y = ((rows - 1) / 2 - jnp.arange(rows))[:, None] * dy
    last = geometry.detectors

    def add_view(image, step):
        view, c, s = step
        at = jnp.clip(geometry.detector(c, s, x, y), -1, last)
        index = jnp.clip(jnp.floor(at).astype(jnp.int32), -1, last - 1)
        weight = (at - index)[..., None]
        seen = (1 - weight) * take(view, index + 1) + weight * take(view, index + 2)
        return image + seen * jnp.square(jnp.broadcast_to(geometry.magnification(c, s, x, y), at.shape))[..., None], None

    wide = jnp.pad(filtered, ((0, 0), (1, 1), (0, 0)))
    c, s = (np.asarray(f(geometry.angles), np.float32) for f in (np.cos, np.sin))
    return lax.scan(add_view, zeros((rows, columns, filtered.shape[-1]), filtered), (wide, c, s))[0]


def toeplitz(geometry, filter: str) -> Array:
    """The ramp filter as a matrix over detectors, `(D, D)`, per mm at the axis."""
    if filter not in WINDOWS:
        raise UserError("fbp.filter", f"no {filter!r}; there is {', '.join(WINDOWS)}")
    count = geometry.detectors
    size = 4 * count
    n = np.fft.fftfreq(size, 1 / size)
    kernel = np.where(n % 2 == 1, -1 / (np.pi * np.where(n == 0, 1, n)) ** 2, 0)
    kernel[0] = 0.25
    kernel = np.fft.ifft(np.fft.fft(kernel) * WINDOWS[filter](np.fft.fftfreq(size))).real / geometry.pitch_mm
    if getattr(geometry, "curved", False):
        gamma = n * geometry.detector_mm / geometry.detector_distance_mm
        kernel /= np.sinc(gamma / np.pi) ** 2
    i = jnp.arange(count)
    return jnp.asarray(kernel, jnp.float32)[i[:, None] - i[None, :]]


def obliquity(geometry) -> np.ndarray:
    """The cosine of each detector's angle to the central ray, `(1, D)`."""
    return np.cos(geometry.fan_angles)[None, :]


def view_weights(geometry) -> np.ndarray:
    """The angle in radians for which each view stands; gaps of a limited scan stand for nothing."""
    weights, _, _ = _gaps(geometry.angles, geometry.period)
    return weights


def redundancy(geometry) -> np.ndarray:
    """What each ray counts, `(V, D)`: 1/2 where it is measured from both ends, smooth for a short scan (Parker 1982)."""
    if geometry.period == np.pi:
        return np.ones((1, 1))
    _, start, span = _gaps(geometry.angles, geometry.period)
    if span > 2 * np.pi - 1e-6:
        return np.full((1, 1), 0.5)
    beta = np.mod(np.asarray(geometry.angles) - start + 1e-9, 2 * np.pi)[:, None]
    gamma = -geometry.fan_angles[None, :]
    delta = max((span - np.pi) / 2, 1e-6)
    rise = np.sin(np.pi / 4 * np.clip(beta / np.maximum(delta - gamma, 1e-9), 0, 2)) ** 2
    fall = np.sin(np.pi / 4 * np.clip((np.pi + 2 * delta - beta) / np.maximum(delta + gamma, 1e-9), 0, 2)) ** 2
    return np.where(beta < 2 * (delta - gamma), rise, np.where(beta <= np.pi - 2 * gamma, 1.0, fall))


def _gaps(angles, period):
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
