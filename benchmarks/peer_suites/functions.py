"""What the peers' tests can call: medjax's functions on arrays of NumPy, by name, channels last as medjax has them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peer_suites import operators
from medjax.classical import iterative
from medjax.data import io
from medjax.measures import classification, image_quality, regions, sets
from medjax.ops import fft as fourier
from medjax.physics import mri
from medjax.physics.ct import Parallel
from medjax.physics.optics import Mask


def ssim(pred: np.ndarray, target: np.ndarray, data_range: float) -> Any:
    return image_quality.ssim(_real(pred), _real(target), data_range)


def fastmri_ssim(pred: np.ndarray, target: np.ndarray, data_range: float) -> Any:
    return image_quality.fastmri_ssim(_real(pred), _real(target), data_range)


def psnr(pred: np.ndarray, target: np.ndarray, data_range: float) -> Any:
    return image_quality.psnr(_real(pred), _real(target), data_range)


def mse(pred: np.ndarray, target: np.ndarray) -> Any:
    return image_quality.mse(_real(pred), _real(target))


def mae(pred: np.ndarray, target: np.ndarray) -> Any:
    return image_quality.mae(_real(pred), _real(target))


def nmse(pred: np.ndarray, target: np.ndarray, data_range: float) -> Any:
    return image_quality.nmse(_real(pred), _real(target), data_range)


def parallel(image: np.ndarray, angles: np.ndarray, detectors: int) -> Any:
    """The sinogram of pixels and detector elements of 1 mm."""
    return _parallel(image.shape[1:3], tuple(angles), detectors, False)(_real(image))


def filtered_back_projection(sinogram: np.ndarray, angles: np.ndarray, shape: tuple[int, int], filter: str) -> Any:
    return _parallel(tuple(shape), tuple(angles), sinogram.shape[2], filter)(_real(sinogram))


def total_variation(image: np.ndarray, weight: float) -> Any:
    return _denoise(_real(image), weight)


def overlap(pred: np.ndarray, target: np.ndarray) -> Any:
    return _overlap(jnp.asarray(pred), jnp.asarray(target))


def hausdorff(pred: np.ndarray, target: np.ndarray, spacing: np.ndarray, percentile: float) -> Any:
    return _hausdorff(*_regions(pred, target, spacing), percentile)


def distances(pred: np.ndarray, target: np.ndarray, spacing: np.ndarray) -> Any:
    return _distances(*_regions(pred, target, spacing))


def surface_distance(pred: np.ndarray, target: np.ndarray, spacing: np.ndarray) -> Any:
    return _surface_distance(*_regions(pred, target, spacing))


def surface_dice(pred: np.ndarray, target: np.ndarray, spacing: np.ndarray, tolerance: float) -> Any:
    return _surface_dice(*_regions(pred, target, spacing), tolerance)


def mcc(pred: np.ndarray, target: np.ndarray) -> Any:
    """Of two maps `(N,)`."""
    return regions.mcc(*(jnp.asarray(found)[None, :, None] for found in (pred, target)))[0, 0]


def precision(pred: np.ndarray, target: np.ndarray) -> Any:
    return classification.precision_recall_f1(pred[:, None], target[:, None])[0][0]


def recall(pred: np.ndarray, target: np.ndarray) -> Any:
    return classification.precision_recall_f1(pred[:, None], target[:, None])[1][0]


def f1(pred: np.ndarray, target: np.ndarray) -> Any:
    return classification.precision_recall_f1(pred[:, None], target[:, None])[2][0]


def random_lines(seed: int, size: int, acceleration: float, centre: float) -> Any:
    return mri.random_lines(jax.random.key(seed), (size,), acceleration, centre)


def equispaced_lines(seed: int, size: int, acceleration: float, centre: float) -> Any:
    return mri.equispaced_lines(jax.random.key(seed), (size,), acceleration, centre)


def centre_crop(images: np.ndarray, size: int) -> Any:
    return image_quality.centre_crop(_real(images), size)


def root_sum_of_squares(coils: np.ndarray) -> Any:
    return mri.root_sum_of_squares(jnp.asarray(coils))


def fft(images: np.ndarray, ndim: int) -> Any:
    return fourier.fft(jnp.asarray(images, jnp.result_type(complex)), ndim)


def ifft(kspace: np.ndarray, ndim: int) -> Any:
    return fourier.ifft(jnp.asarray(kspace, jnp.result_type(complex)), ndim)


def read(path: str) -> list[dict[str, Any]]:
    """The records of a file or folder."""
    return [{"image": np.asarray(record.image), "slope": record.slope, "intercept": record.intercept,
             "affine": record.affine, "spacing": record.spacing_mm} for record in io.read(path)]


FUNCTIONS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (
    ssim, fastmri_ssim, psnr, mse, mae, nmse, parallel, filtered_back_projection, total_variation,
    overlap, hausdorff, distances, surface_distance, surface_dice, mcc, precision, recall, f1, classification.auroc, sets.frechet,
    random_lines, equispaced_lines, centre_crop, root_sum_of_squares, fft, ifft, operators.apply, operators.gradients, operators.fbp, read)}


def _regions(pred: np.ndarray, target: np.ndarray, spacing: np.ndarray) -> tuple[jax.Array, ...]:
    return jnp.asarray(pred), jnp.asarray(target), _real(np.asarray(spacing))


_overlap = jax.jit(regions.overlap)
_hausdorff = jax.jit(lambda *given: regions.hausdorff(regions.distances(*given[:3]), given[3]))
_distances = jax.jit(regions.distances)
_surface_distance = jax.jit(lambda *given: regions.surface_distance(regions.distances(*given)))
_surface_dice = jax.jit(lambda *given: regions.surface_dice(regions.distances(*given[:3]), given[3]))


def _real(image: np.ndarray) -> jax.Array:
    """As JAX holds real numbers: float32, or float64 where that is enabled."""
    return jnp.asarray(image, jnp.result_type(float))


@functools.lru_cache(maxsize=64)
def _parallel(shape: tuple[int, int], angles: tuple[float, ...], detectors: int, filter: str | bool) -> Callable[..., Any]:
    A = Parallel(shape, 1.0, angles, detectors, 1.0)
    return jax.jit((lambda y: A.fbp(y, filter)) if filter else A)


@jax.jit
def _denoise(image: jax.Array, weight: float) -> jax.Array:
    return iterative.tv(Mask(jnp.ones(image.shape, bool)), image, weight, nonnegative=False)

