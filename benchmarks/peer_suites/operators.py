"""medjax's operators as deepinv's tests call them: channels first, complex numbers as pairs, each with its adjoint."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.ops.fft import fft, ifft
from medjax.physics import mri, nufft
from medjax.physics.ct import Fan, Parallel
from medjax.physics.optics import Blur, Decimate, Mask
from medjax.physics.sampling import PerSample


@dataclass(frozen=True)
class Pair:
    """An operator and its adjoint, functions of `(x, *parameters, **settings)`."""

    forward: Callable[..., jax.Array]
    adjoint: Callable[..., jax.Array]


def apply(x: jax.Array, *parameters: jax.Array, name: str, back: bool, **settings: Any) -> jax.Array:
    """The operator of a name, or its adjoint, at `x`."""
    return _compiled(name, back, **settings)(x, *parameters)


def gradients(cotangent: jax.Array, x: jax.Array, *parameters: jax.Array, name: str, back: bool,
              **settings: Any) -> tuple[jax.Array, ...]:
    """Of the inner product of `apply` with `cotangent`, with respect to the parameters."""
    fn = _compiled(name, back, **settings)
    y, pull = jax.vjp(lambda *p: fn(x, *p), *parameters)
    return pull(cotangent.astype(y.dtype))


def fbp(y: jax.Array, **geometry: Any) -> jax.Array:
    """Filtered back-projection of `(B, C, detectors, views)`."""
    return _first(_beams(**geometry).fbp(_sinogram(y)))


@functools.lru_cache(maxsize=256)
def _compiled(name: str, back: bool, **settings: Any) -> Callable[..., jax.Array]:
    pair = OPERATORS[name]
    return jax.jit(functools.partial(pair.adjoint if back else pair.forward, **settings))


def _last(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, 1, -1)


def _first(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, -1, 1)


def _blur(x: jax.Array, kernel: jax.Array, boundary: str) -> jax.Array:
    """One kernel for all, or one for each channel of each sample: each is a sample of its own to medjax."""
    if boundary == "valid":
        wide = _blur(x, kernel, "zero")
        cut = tuple(slice(n // 2, size - n // 2) for n, size in zip(kernel.shape[2:], x.shape[2:], strict=True))
        return wide[(..., *cut)]
    if kernel.shape[:2] == (1, 1):
        return _first(Blur.kernel(kernel[0, 0], boundary=boundary)(_last(x)))
    planes = x.reshape(-1, *x.shape[2:], 1)
    kernels = jnp.broadcast_to(kernel, (*x.shape[:2], *kernel.shape[2:])).reshape(-1, *kernel.shape[2:])
    return PerSample(Blur((kernels,), boundary))(planes).reshape(x.shape)


def _blur_back(y: jax.Array, kernel: jax.Array, boundary: str) -> jax.Array:
    """medjax's adjoint; with "valid" what was cut off comes back as zeros before it."""
    if boundary == "valid":
        margins = [(0, 0), (0, 0), *((n // 2, n // 2) for n in kernel.shape[2:])]
        return _blur_back(jnp.pad(y, margins), kernel, "zero")
    if kernel.shape[:2] == (1, 1):
        return _first(Blur.kernel(kernel[0, 0], boundary=boundary).adjoint(_last(y)))
    planes = y.reshape(-1, *y.shape[2:], 1)
    kernels = jnp.broadcast_to(kernel, (*y.shape[:2], *kernel.shape[2:])).reshape(-1, *kernel.shape[2:])
    return PerSample(Blur((kernels,), boundary)).adjoint(planes).reshape(y.shape)


def _mask(x: jax.Array, mask: jax.Array) -> jax.Array:
    mask = mask if mask.ndim == x.ndim else mask[None]
    return _first(Mask(_last(mask))(_last(x)))


def _sense(x: jax.Array, mask: jax.Array, maps: jax.Array) -> jax.Array:
    """`(B, 2, *space)` to `(B, 2, coils, *space)`."""
    y = mri.Cartesian(maps, mask)(mri.to_complex(_last(x)))
    return jnp.stack([y.real, y.imag], 1)


def _sense_back(y: jax.Array, mask: jax.Array, maps: jax.Array) -> jax.Array:
    return _first(mri.to_channels(mri.Cartesian(maps, mask).adjoint(jax.lax.complex(y[:, 0], y[:, 1]))))


def _pairs(x: jax.Array) -> jax.Array:
    return jnp.stack([x.real, x.imag], -1)


def _numbers(x: jax.Array) -> jax.Array:
    return jax.lax.complex(x[..., 0], x[..., 1])


@functools.lru_cache
def _plan(trajectory: bytes, space: tuple[int, ...]) -> nufft.Plan:
    with jax.ensure_compile_time_eval():
        return nufft.plan(np.frombuffer(trajectory).reshape(-1, len(space)), space)


def _nufft(x: jax.Array, trajectory: bytes, space: tuple[int, ...]) -> jax.Array:
    return _pairs(nufft.nufft(_numbers(x), _plan(trajectory, space)))


def _nufft_back(y: jax.Array, trajectory: bytes, space: tuple[int, ...]) -> jax.Array:
    return _pairs(nufft.nufft_adjoint(_numbers(y), _plan(trajectory, space)))


def _beams(size: int, angles: tuple[float, ...], detectors: int, pixel: float, element: float = 1.0, source: float = 0.0,
           distance: float = 0.0) -> Parallel | Fan:
    if source:
        return Fan((size, size), pixel, angles, detectors, element, source_mm=source, detector_distance_mm=distance)
    return Parallel((size, size), pixel, angles, detectors, element)


def _sinogram(y: jax.Array) -> jax.Array:
    """`(B, C, detectors, views)` to `(B, views, detectors, C)`."""
    return jnp.transpose(y, (0, 3, 2, 1))


def _radon(x: jax.Array, **geometry: Any) -> jax.Array:
    return jnp.transpose(_beams(**geometry)(_last(x)), (0, 3, 2, 1))


def _radon_back(y: jax.Array, **geometry: Any) -> jax.Array:
    return _first(_beams(**geometry).adjoint(_sinogram(y)))


OPERATORS = {
    "blur": Pair(_blur, _blur_back),
    "mask": Pair(_mask, _mask),
    "decimate": Pair(lambda x, factor: _first(Decimate((factor,) * (x.ndim - 2))(_last(x))),
                     lambda y, factor: _first(Decimate((factor,) * (y.ndim - 2)).adjoint(_last(y)))),
    "fourier": Pair(lambda x, ndim: _pairs(fft(_numbers(x), ndim)), lambda y, ndim: _pairs(ifft(_numbers(y), ndim))),
    "cartesian": Pair(_sense, _sense_back),
    "nufft": Pair(_nufft, _nufft_back),
    "radon": Pair(_radon, _radon_back),
}
