"""What a denoiser took from an image or added to it, and where that is more than noise explains.

A difference of noise alone averages out over a neighbourhood; that of a structure does not. So the smoothed difference is
compared, voxel by voxel, with smoothed differences of noise alone (a parametric bootstrap, Efron and Tibshirani 1993), and
of the voxels that are called significant at most a share `LEVEL` is expected to be noise (Benjamini and Hochberg 1995; it
holds for the positive dependence that smoothing makes, Benjamini and Yekutieli 2001).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medjax.types import UserError

SMOOTH = 1.5  # standard deviation of the neighbourhood, voxels
POOL = 4.0  # of that over which the variance of noise is taken to be alike, voxels
LEVEL = 0.05
LEAST = 1e-12


@dataclass(frozen=True)
class Removed:
    """A smoothed difference, output less input, `(*space)`; its size in deviations of noise; where it is significant.

    `excess` is how much larger differences are all over the image than those of the noise compared with: above about 1.2
    the image has more noise than was thought, and the comparison is made with so much more.
    """

    difference: np.ndarray
    z: np.ndarray
    significant: np.ndarray
    excess: float

    @property
    def shown(self) -> np.ndarray:
        """The difference where it is significant, 0 elsewhere."""
        return np.where(self.significant, self.difference, 0)


def removed(difference: np.ndarray, noise: Sequence[np.ndarray], mask: np.ndarray | None = None,
            level: float = LEVEL) -> Removed:
    """Where a `difference` `(*space)`, output less input, is more than `noise`: several differences that are of noise alone.

    Those are a degraded image taken from the image that was degraded, each by noise of its own. Only where `mask` is True
    voxels are tested. Raises UserError for fewer than three.
    """
    if len(noise) < 3:
        raise UserError("noise", f"{len(noise)} examples of it; give at least 3")
    inside = np.ones(difference.shape, bool) if mask is None else mask
    smooth = ndimage.gaussian_filter(np.asarray(difference, np.float64), SMOOTH)
    draws = np.stack([ndimage.gaussian_filter(np.asarray(one, np.float64), SMOOTH) for one in noise])
    count, mean = len(draws), draws.mean(0)
    deviation = np.sqrt(ndimage.gaussian_filter(draws.var(0, ddof=1), POOL) + LEAST)
    # Each draw is compared with the mean of the others, as the difference is with the mean of all.
    null = (draws - mean) * (count / (count - 1)) / deviation / np.sqrt(1 + 1 / (count - 1))
    z = (smooth - mean) / deviation / np.sqrt(1 + 1 / count)
    if not inside.any():
        return Removed(smooth, z, np.zeros(z.shape, bool), float("nan"))
    sizes = np.sort(np.abs(null[:, inside]), axis=None)
    excess = float(np.median(np.abs(z[inside])) / max(float(np.median(sizes)), LEAST))
    z = z / max(1.0, excess)
    beyond = len(sizes) - np.searchsorted(sizes, np.abs(z[inside]), side="left")
    significant = np.zeros(z.shape, bool)
    significant[inside] = discoveries((1 + beyond) / (1 + len(sizes)), level)
    return Removed(smooth, z, significant, excess)


def discoveries(p: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Which of the p values `(n,)` are significant with a false discovery rate of `level` (Benjamini and Hochberg 1995)."""
    order = np.sort(p)
    passed = np.flatnonzero(order <= level * np.arange(1, len(p) + 1) / len(p))
    return p <= order[passed[-1]] if len(passed) else np.zeros(p.shape, bool)
