"""Segmentation that needs no training, from scikit-image, on one image `(*space, C)` in unit range, 2-D or 3-D.

Each looks at the first channel and gives labels `(*space,)` int32 from 0 up.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage
from skimage import filters, morphology, segmentation

from medjax.classical._declared import method
from medjax.types import UserError

Image = Float[np.ndarray, "*space c"]
Labels = Int[np.ndarray, "*space"]


@method("segment")
def otsu(image: Image, classes: int = 2, strength: float = 1.0) -> Labels:
    """Thresholds that divide the histogram best (Otsu, 1979; several: Liao, 2001): labels in order of brightness."""
    grey = np.asarray(image[..., 0], np.float64)
    if len(np.unique(grey)) < classes:
        return np.zeros(grey.shape, np.int32)
    # 64 bins: the search over several thresholds takes time with their number to the power of the thresholds.
    cuts = [filters.threshold_otsu(grey)] if classes == 2 else filters.threshold_multiotsu(grey, classes, nbins=64)
    return np.digitize(grey, cuts).astype(np.int32)


@method("segment", (0.05, 0.1, 0.2, 0.3, 0.4))
def region_growing(image: Image, classes: int = 2, strength: float = 0.2) -> Labels:
    """What hangs together with the brightest spot of the smoothed image and is at most `strength` darker (Adams, 1994)."""
    _one_region(classes)
    grey = ndimage.gaussian_filter(np.asarray(image[..., 0], np.float64), 1.0)
    seed = np.unravel_index(grey.argmax(), grey.shape)
    return segmentation.flood(grey, seed, tolerance=strength).astype(np.int32)


@method("segment")
def edges(image: Image, classes: int = 2, strength: float = 1.0) -> Labels:
    """A watershed of the edge strength (Sobel) from the surely bright and surely dark voxels (Beucher, 1979)."""
    _one_region(classes)
    grey = ndimage.gaussian_filter(np.asarray(image[..., 0], np.float64), 1.0)
    if grey.min() == grey.max():
        return np.zeros(grey.shape, np.int32)
    cut = filters.threshold_otsu(grey)
    dark, bright = grey[grey <= cut].mean(), grey[grey > cut].mean()
    markers = np.where(grey < dark, 1, np.where(grey > bright, 2, 0))
    found = segmentation.watershed(filters.sobel(grey), markers) == 2
    return morphology.opening(found, ndimage.generate_binary_structure(found.ndim, 1)).astype(np.int32)


def _one_region(classes: int) -> None:
    if classes != 2:
        raise UserError("classes", f"{classes}; this method finds one region in a background")
