"""Denoisers without training, from scikit-image and SciPy, on one image `(*space, C)` in unit range, 2-D or 3-D.

Each knows the noise: its level where the task fixes it, and its kind. What is not Gaussian is transformed so that it nearly
is, and the result is corrected for the bias. `strength` multiplies the noise level that a filter assumes.
"""

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from skimage import restoration

from medjax.classical._declared import NoiseModel, grid, method

Image = Float[np.ndarray, "*space c"]
Filter = Callable[[np.ndarray, float], np.ndarray]
"""Of one channel `(*space)` with additive noise of the given standard deviation."""

STRENGTHS = grid(0.35, 2.0, 6)


@method("denoise", STRENGTHS)
def nlm(image: Image, noise: NoiseModel, strength: float = 1.0) -> Image:
    """Non-local means (Buades 2005; Darbon 2008), its filter strength 0.8 of the noise, as scikit-image advises."""
    patch = {"patch_size": 5, "patch_distance": 6} if image.ndim == 3 else {"patch_size": 3, "patch_distance": 3}

    def smooth(x: np.ndarray, sigma: float) -> np.ndarray:
        return restoration.denoise_nl_means(x, sigma=sigma, h=0.8 * sigma, fast_mode=True, preserve_range=True, **patch)

    return _filtered(image, noise, strength, smooth)


@method("denoise", STRENGTHS)
def tv(image: Image, noise: NoiseModel, strength: float = 1.0) -> Image:
    """Total variation (Rudin 1992; Chambolle 2004), its weight the noise level."""
    return _filtered(image, noise, strength, lambda x, sigma: restoration.denoise_tv_chambolle(
        x, weight=sigma, eps=1e-5, max_num_iter=400))


@method("denoise", STRENGTHS)
def wavelet(image: Image, noise: NoiseModel, strength: float = 1.0) -> Image:
    """Soft wavelet thresholding with BayesShrink (Chang 2000), averaged over shifts (Coifman 1995)."""
    def shrink(x: np.ndarray, sigma: float) -> np.ndarray:
        return restoration.cycle_spin(x, func=restoration.denoise_wavelet, max_shifts=2, workers=1,
                                      func_kw={"sigma": sigma, "wavelet": "db2", "rescale_sigma": False})

    return _filtered(image, noise, strength, shrink)


@method("denoise", (1.0, 2.0, 3.0))
def median(image: Image, noise: NoiseModel, strength: float = 1.0) -> Image:
    """The median over `strength` voxels to each side; of salt and pepper, only where a voxel was struck (Chan 2005).

    There the struck voxels do not count, unless they are most of a box: then it is black or white (Hwang and Haddad 1995).
    """
    size = 2 * int(strength) + 1

    def middle(x: np.ndarray, _: float) -> np.ndarray:
        return ndimage.median_filter(x, size, mode="nearest")

    if noise.kind != "salt_pepper":
        return _filtered(image, noise, 1.0, middle)
    struck = (image <= 0) | (image >= 1)

    def unstruck(x: np.ndarray, channel: int) -> np.ndarray:
        whole, valid = middle(x, 0.0), ~struck[..., channel]
        found = np.where((whole <= 0) | (whole >= 1), whole, _median_of(x, valid, size) if valid.any() else whole)
        return np.where(valid, x, found)

    return _per_channel(image, unstruck)


def noise_level(image: Image) -> float:
    """The noise's standard deviation, from the median of the finest wavelet coefficients (Donoho 1994)."""
    return float(restoration.estimate_sigma(image, average_sigmas=True, channel_axis=-1))


def _filtered(image: Image, noise: NoiseModel, strength: float, smooth: Filter) -> Image:
    """`smooth` where the noise is additive and even, and back; what noise adds to the mean is taken off."""
    sigma, forward, back = _TRANSFORMS[noise.kind](np.asarray(image, np.float64), noise.level)
    if sigma == 0:
        return image
    changed = _per_channel(forward(np.asarray(image, np.float64)), lambda x, c: smooth(x, strength * sigma))
    return back(changed).astype(image.dtype)


Transform = tuple[float, Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]
"""The noise level after a transform that makes noise additive and even, the transform, and the way back without bias."""


def _gaussian(image: np.ndarray, level: float | None) -> Transform:
    return noise_level(image) if level is None else level, np.asarray, np.asarray


def _rician(image: np.ndarray, level: float | None) -> Transform:
    """A magnitude's mean square is that of the signal and twice the variance (Gudbjartsson & Patz, 1995)."""
    sigma = noise_level(image) if level is None else level
    return sigma, np.asarray, lambda x: np.sqrt(np.maximum(np.square(x) - 2 * sigma**2, 0))


def _poisson_gaussian(image: np.ndarray, level: float | None) -> Transform:
    """The generalised Anscombe transform and its closed-form unbiased inverse (Mäkitalo & Foi, 2013)."""
    if level is None:
        return _gaussian(image, None)
    gain, read = level**2, 0.2 * level  # as the noise is simulated: photons = 1 / level^2, read-out noise 0.2 of it

    def forward(x: np.ndarray) -> np.ndarray:
        return 2 / gain * np.sqrt(np.maximum(gain * x + 0.375 * gain**2 + read**2, 0))

    def back(d: np.ndarray) -> np.ndarray:
        d = np.maximum(d, 0.5)
        root = np.sqrt(1.5)
        counts = d**2 / 4 + root / (4 * d) - 11 / (8 * d**2) + 5 * root / (8 * d**3) - 0.125 - (read / gain) ** 2
        return gain * np.maximum(counts, 0)

    return 1.0, forward, back


def _speckle(image: np.ndarray, level: float | None) -> Transform:
    """The logarithm makes the factor a sum (Arsenault & April, 1976); its mean is taken off again."""
    floor = 1e-3
    mean, sigma = (0.0, noise_level(np.log(np.maximum(image, floor)))) if level is None else _log_speckle(level)
    return sigma, lambda x: np.log(np.maximum(x, floor)), lambda x: np.exp(x - mean)


@functools.lru_cache
def _log_speckle(level: float) -> tuple[float, float]:
    """Mean and standard deviation of the logarithm of the factor that speckle of a strength multiplies by."""
    parts = np.random.default_rng(0).normal(0, np.sqrt(0.5), (2, 200_000))
    factor = np.log(np.hypot(np.sqrt(max(1 - level**2, 0)) + level * parts[0], level * parts[1]))
    return float(factor.mean()), float(factor.std())


_TRANSFORMS: dict[str, Callable[[np.ndarray, float | None], Transform]] = {
    "gaussian": _gaussian, "rician": _rician, "poisson_gaussian": _poisson_gaussian, "speckle": _speckle,
    "salt_pepper": lambda image, level: _gaussian(image, None)}


def _median_of(x: np.ndarray, valid: np.ndarray, size: int) -> np.ndarray:
    """The median of the valid voxels in a box of `size` a side; where there is none, the nearest valid one."""
    at = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    filled = x[tuple(at)]
    boxes = np.lib.stride_tricks.sliding_window_view(np.pad(np.where(valid, x, np.nan), size // 2, constant_values=np.nan),
                                                     (size,) * x.ndim)
    some = np.isfinite(boxes).any(tuple(range(-x.ndim, 0)))
    found = filled.copy()
    found[some] = np.nanmedian(boxes[some].reshape(int(some.sum()), -1), -1)
    return found


def _per_channel(image: np.ndarray, change: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """A function of one channel and its number on each channel, in float64."""
    return np.stack([change(np.asarray(image[..., c], np.float64), c) for c in range(image.shape[-1])], axis=-1)
