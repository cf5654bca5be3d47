"""Curves over spatial frequency: the radial average of a 2-D spectrum, and where a curve crosses a level."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medjax.types import UserError


@dataclass(frozen=True)
class Curve:
    """`value` `(n,)` at `frequency` `(n,)`, in cycles per mm, increasing."""

    frequency: np.ndarray
    value: np.ndarray

    def crossing(self, level: float) -> float:
        """The first frequency at which the curve falls to `level`, by linear interpolation; NaN where it never does."""
        below = np.flatnonzero(self.value <= level)
        if not below.size:
            return float("nan")
        i = int(below[0])
        if i == 0:
            return float(self.frequency[0])
        f, v = self.frequency[i - 1:i + 1], self.value[i - 1:i + 1]
        return float(f[0] + (v[0] - level) / (v[0] - v[1]) * (f[1] - f[0]))

    @property
    def f50(self) -> float:
        """Where an MTF is 0.5, in cycles per mm."""
        return self.crossing(0.5)

    @property
    def f10(self) -> float:
        """Where an MTF is 0.1, in cycles per mm."""
        return self.crossing(0.1)

    @property
    def mean_frequency(self) -> float:
        """The mean of the frequencies, weighted by the values, in cycles per mm."""
        return float((self.frequency * self.value).sum() / self.value.sum())


def frequencies(shape: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """The distance from frequency 0 of every entry of a 2-D DFT of `shape`, `(H, W)` in cycles per mm."""
    rows, columns = (np.fft.fftfreq(n, d) for n, d in zip(shape, spacing_mm, strict=True))
    return np.hypot(rows[:, None], columns)


def radial_average(spectrum: np.ndarray, spacing_mm: Sequence[float]) -> Curve:
    """The mean of a 2-D spectrum `(H, W)`, as `numpy.fft.fft2` orders it, over rings about frequency 0.

    Rings are as wide as the coarser axis is sampled, up to the lower of both Nyquist frequencies; each stands at the mean
    frequency of its entries.
    """
    if spectrum.ndim != 2 or len(spacing_mm) != 2:
        raise UserError("spectrum", f"of {spectrum.ndim} axes with {len(spacing_mm)} voxel sizes; give two of each")
    distance = frequencies(spectrum.shape, spacing_mm)
    width = max(1 / (n * d) for n, d in zip(spectrum.shape, spacing_mm, strict=True))
    ring = np.rint(distance / width).astype(int)
    ring[distance > min(0.5 / d for d in spacing_mm) * (1 + 1e-9)] = -1
    inside = ring >= 0
    count = np.bincount(ring[inside])
    sums = [np.bincount(ring[inside], array[inside]) for array in (distance, spectrum)]
    return Curve(*(total[count > 0] / count[count > 0] for total in sums))
