"""What the peers' tests can call, by name: medjax's functions, channels last as medjax has them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peer_suites import operators
from medjax.classical import iterative
from medjax.data import io
from medjax.measures import classification, image_quality, regions, sets
from medjax.ops.fft import fft, ifft
from medjax.physics import mri
from medjax.physics.ct import Parallel
from medjax.physics.optics import Mask


def given(x: Any) -> Any:
    """An array as JAX holds it, with numbers of float32, or of float64 where that is enabled; all else as it is."""
    if not isinstance(x, np.ndarray) or x.dtype == bool:
        return x
    return jnp.asarray(x, jnp.result_type(complex if np.iscomplexobj(x) else float))


def parallel(image: jax.Array, angles: tuple[float, ...], detectors: int) -> jax.Array:
    """The sinogram of pixels and detector elements of 1 mm."""
    return _parallel(image.shape[1:3], angles, detectors)(image)


def filtered_back_projection(sinogram: jax.Array, angles: tuple[float, ...], size: int, filter: str) -> jax.Array:
    return _parallel((size, size), angles, sinogram.shape[2], filter)(sinogram)


@functools.lru_cache(maxsize=64)
def _parallel(shape: tuple[int, int], angles: tuple[float, ...], detectors: int, filter: str = "") -> Callable[..., Any]:
    A = Parallel(shape, 1.0, angles, detectors, 1.0)
    return jax.jit((lambda y: A.fbp(y, filter)) if filter else A)


@jax.jit
def total_variation(image: jax.Array, weight: float) -> jax.Array:
    return iterative.tv(Mask(jnp.ones(image.shape, bool)), image, weight, nonnegative=False)


def lines(name: str, seed: int, size: int, acceleration: float, centre: float) -> jax.Array:
    """A mask of lines, `(size,)`: random_lines or equispaced_lines."""
    return getattr(mri, name)(jax.random.key(seed), (size,), acceleration, centre)


def read(path: str) -> list[dict[str, Any]]:
    """The records of a file or folder."""
    return [{"image": np.asarray(record.image), "slope": record.slope, "intercept": record.intercept,
             "affine": record.affine, "spacing": record.spacing_mm} for record in io.read(path)]


JAX: tuple[Callable[..., Any], ...] = (
    image_quality.ssim, image_quality.fastmri_ssim, image_quality.psnr, image_quality.mse, image_quality.mae,
    image_quality.nmse, image_quality.centre_crop, mri.root_sum_of_squares, fft, ifft, parallel, filtered_back_projection,
    total_variation, jax.jit(regions.overlap), jax.jit(regions.distances), jax.jit(regions.hausdorff, static_argnums=1),
    jax.jit(regions.surface_distance), jax.jit(regions.surface_dice), regions.mcc, lines, operators.apply,
    operators.gradients, operators.fbp)
NUMPY: tuple[Callable[..., Any], ...] = (classification.precision_recall_f1, classification.auroc, sets.frechet, read)
FUNCTIONS, PLAIN = ({function.__name__: function for function in functions} for functions in (JAX, NUMPY))


def answer(name: str, args: Sequence[Any], settings: dict[str, Any]) -> Any:
    """What the function gives, with NumPy's arrays."""
    if name in PLAIN:
        return PLAIN[name](*args, **settings)
    return jax.tree.map(np.asarray, FUNCTIONS[name](*map(given, args), **settings))
