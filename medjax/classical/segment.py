"""Segmentation that needs no training, from scikit-image, on one image `(*space, C)` in unit range, 2-D or 3-D.

Each looks at the first channel and gives labels `(*space,)` int32 from 0 up.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage
from skimage import filters, morphology, segmentation

from medjax.classical._declared import grid, method

Image = Float[np.ndarray, "*space c"]
Labels = Int[np.ndarray, "*space"]

EM_STEPS = 30


@method("segment")
def otsu(image: Image, classes: int = 2, strength: float = 1.0) -> Labels:
    """Thresholds that divide the histogram best (Otsu, 1979; several: Liao, 2001): labels in order of brightness."""
    grey = np.asarray(image[..., 0], np.float64)
    if len(np.unique(grey)) < classes:
        return np.zeros(grey.shape, np.int32)
    if classes == 2:
        return (grey > filters.threshold_otsu(grey)).astype(np.int32)
    # The search takes time with the number of bins to the power of the cuts. A cut is the middle of the last bin below it.
    bins = 64
    cuts = filters.threshold_multiotsu(grey, classes, nbins=bins) + np.ptp(grey) / (2 * bins)
    return np.digitize(grey, cuts).astype(np.int32)


@method("segment", grid(0.5, 8.0, 5))
def mixture(image: Image, classes: int = 2, strength: float = 2.0) -> Labels:
    """A Gaussian mixture by EM with a Markov random field (Zhang et al., 2001; its mean field): labels by brightness.

    `strength` weighs how far a voxel follows those around it; 0 looks at intensities alone.
    """
    grey = np.asarray(image[..., 0], np.float64)
    if len(np.unique(grey)) < classes:
        return np.zeros(grey.shape, np.int32)
    shape = (classes,) + (1,) * grey.ndim
    least = (1e-3 * np.ptp(grey)) ** 2  # a background of one value has no variance
    mean = _centres(grey, classes).reshape(shape)
    share = np.eye(classes)[np.abs(grey - mean).argmin(0)].transpose(grey.ndim, *range(grey.ndim))
    axes = tuple(range(1, grey.ndim + 1))
    for _ in range(EM_STEPS):
        weight = share.sum(axes, keepdims=True) + 1e-9
        mean = (share * grey).sum(axes, keepdims=True) / weight
        variance = np.maximum((share * (grey - mean) ** 2).sum(axes, keepdims=True) / weight, least)
        around = ndimage.uniform_filter(share, (1,) + (3,) * grey.ndim, mode="nearest")
        log = strength * around + np.log(weight / grey.size) - 0.5 * np.log(variance) - 0.5 * (grey - mean) ** 2 / variance
        share = np.exp(log - log.max(0))
        share /= share.sum(0)
    return np.argsort(np.argsort(mean.ravel()))[share.argmax(0)].astype(np.int32)


@method("region", (0.05, 0.1, 0.2, 0.3, 0.4))
def region_growing(image: Image, strength: float = 0.2) -> Labels:
    """What hangs together with the brightest spot of the smoothed image and is at most `strength` darker (Adams, 1994)."""
    grey = ndimage.gaussian_filter(np.asarray(image[..., 0], np.float64), 1.0)
    seed = np.unravel_index(grey.argmax(), grey.shape)
    return segmentation.flood(grey, seed, tolerance=strength).astype(np.int32)


@method("region")
def edges(image: Image, strength: float = 1.0) -> Labels:
    """A watershed of the edge strength (Sobel) from the surely bright and surely dark voxels (Beucher, 1979)."""
    grey = ndimage.gaussian_filter(np.asarray(image[..., 0], np.float64), 1.0)
    if grey.min() == grey.max():
        return np.zeros(grey.shape, np.int32)
    cut = filters.threshold_otsu(grey)
    dark, bright = grey[grey <= cut].mean(), grey[grey > cut].mean()
    markers = np.where(grey < dark, 1, np.where(grey > bright, 2, 0))
    found = segmentation.watershed(filters.sobel(grey), markers) == 2
    return morphology.opening(found, ndimage.generate_binary_structure(found.ndim, 1)).astype(np.int32)


def _centres(grey: np.ndarray, classes: int) -> np.ndarray:
    """Centres of the intensities by k-means (Lloyd, 1982), in increasing order, `(classes,)`."""
    values = np.sort(grey.ravel())[:: max(1, grey.size // 10_000)]
    centres = np.linspace(values[0], values[-1], classes)
    for _ in range(50):
        nearest = np.digitize(values, (centres[1:] + centres[:-1]) / 2)
        count = np.bincount(nearest, minlength=classes)
        sums = np.bincount(nearest, values, classes)
        centres = np.sort(np.where(count > 0, sums / np.maximum(count, 1), centres))
    return centres
