"""What the values of training images say: where there is tissue, and the range of its intensities."""

from collections.abc import Sequence

import numpy as np

from medjax.types import Record, Region

MAX_POINTS = 4096
MAX_VALUES = 1 << 22
MAX_REGIONS = 1000


def foreground(record: Record) -> np.ndarray:
    """Voxel indices `(K, ndim)` int32 on tissue, K at most 4096, spread evenly; patches are drawn around them.

    Tissue is what lies more than a tenth of the way from the 1st to the 99th percentile, inside the mask if any.
    A record that was unpacked into the cache carries its points in `extras["foreground"]`.
    """
    if "foreground" in record.extras:
        return record.extras["foreground"]
    steps = tuple(max(1, size // 64) for size in record.image.shape[:-1])
    grid = tuple(slice(step // 2, None, step) for step in steps)
    values = np.asarray(record.image[grid], np.float32).mean(-1) * np.float32(np.sign(record.slope))
    low, high = np.percentile(values, (1, 99))
    tissue = values > low + 0.1 * (high - low)
    if "mask" in record.extras:
        tissue &= record.extras["mask"][grid][..., 0]
    points = np.argwhere(tissue) * steps + [step // 2 for step in steps]
    keep = np.linspace(0, len(points) - 1, min(len(points), MAX_POINTS)).astype(int)
    return points[keep].astype(np.int32)


def value_range(regions: Sequence[Region], percentiles: tuple[float, float] = (0.0, 99.9)) -> tuple[float, float]:
    """The `percentiles` of the intensities of `regions` in physical units: pass training regions.

    Every region counts by its size; of many regions a thousand are taken, evenly, and about four million values.
    """
    regions = [regions[i] for i in np.linspace(0, len(regions) - 1, min(len(regions), MAX_REGIONS)).astype(int)]
    voxels = sum((r.stop - r.start) * np.prod(r.record.image.shape[1:-1]) for r in regions)
    thin = max(1, int(np.ceil((voxels / MAX_VALUES) ** (1 / 2))))
    low, high = np.percentile(np.concatenate([_values(r, thin) for r in regions]), percentiles)
    return float(low), float(high)


def _values(region: Region, thin: int) -> np.ndarray:
    """Every `thin`-th value of the last two spatial axes, in physical units."""
    grid = (..., slice(None, None, thin), slice(None, None, thin), slice(None))
    values = np.asarray(region.image[grid], np.float32).reshape(-1)
    return values * np.float32(region.record.slope) + np.float32(region.record.intercept)
