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
LEAST_NOISE = 4


@dataclass(frozen=True)
class Removed:
    """A smoothed difference, output less input, `(*space)`; its size in deviations of noise; where it is significant.

    `excess` is how much larger the finest part of the difference is than that of the noise compared with: above 1 the image
    has more noise than was thought, and the comparison is made with so much more.
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

    Those are a degraded image taken from the image that was degraded, each by noise of its own. Noise may be left in, and so
    may its bias: what lies between 0 and the mean of the noise is none. Only where `mask` is True voxels are tested. Raises
    UserError for fewer than four examples of noise.
    """
    if len(noise) < LEAST_NOISE:
        raise UserError("noise", f"{len(noise)} examples of it; give at least {LEAST_NOISE}")
    inside = np.ones(difference.shape, bool) if mask is None else mask
    smooth, fine = _parts(difference)
    parts = [_parts(one) for one in noise]
    draws, count = np.stack([part[0] for part in parts]), len(parts)
    mean = draws.mean(0)
    squares = np.square(draws - mean).sum(0)
    z = _beyond(smooth, mean) / _deviation(squares / (count - 1), count)
    if not inside.any():
        return Removed(smooth, z, np.zeros(z.shape, bool), float("nan"))
    # Each draw is compared with the others, as the difference is with all.
    null = [np.abs(_beyond(draw, (count * mean - draw) / (count - 1)) / _deviation(
        (squares - np.square(draw - mean) * count / (count - 1)) / (count - 2), count - 1))[inside] for draw in draws]
    finest = np.median([np.median(np.abs(part[1][inside])) for part in parts])
    excess = float(np.median(np.abs(fine[inside])) / max(float(finest), LEAST))
    z = z / max(1.0, excess)
    sizes = np.sort(np.concatenate(null))
    beyond = len(sizes) - np.searchsorted(sizes, np.abs(z[inside]), side="left")
    significant = np.zeros(z.shape, bool)
    significant[inside] = discoveries((1 + beyond) / (1 + len(sizes)), level)
    return Removed(smooth, z, significant, excess)


def _parts(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is smooth of a difference, and the rest."""
    whole = np.asarray(difference, np.float64)
    smooth = ndimage.gaussian_filter(whole, SMOOTH)
    return smooth, whole - smooth


def _beyond(smooth: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """How far a difference lies outside of what is between 0 and the `mean` of noise."""
    return smooth - np.clip(smooth, np.minimum(mean, 0), np.maximum(mean, 0))


def _deviation(variance: np.ndarray, count: int) -> np.ndarray:
    """The deviation of a difference from the mean of `count` others, their `variance` pooled over a neighbourhood."""
    return np.sqrt((ndimage.gaussian_filter(variance, POOL) + LEAST) * (1 + 1 / count))


def discoveries(p: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Which of the p values `(n,)` are significant with a false discovery rate of `level` (Benjamini and Hochberg 1995)."""
    order = np.sort(p)
    passed = np.flatnonzero(order <= level * np.arange(1, len(p) + 1) / len(p))
    return p <= order[passed[-1]] if len(passed) else np.zeros(p.shape, bool)
