"""Intervals around restored images, calibrated on some patients and checked on others.

Split conformal prediction (Vovk et al. 2005; for images Angelopoulos et al. 2022): what a network says of its own errors
may be wrong, and errors of patients it has not seen say by how much. What is exchangeable is the patient, not the voxel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medjax.measures.statistics import interval

LEVEL = 0.9
BINS = 10
SHARES = np.linspace(0, 0.95, 20)  # of the voxels, that are left out of a sparsification curve
LEAST = 1e-12


@dataclass(frozen=True)
class Voxels:
    """What was restored of one patient: absolute errors `(K,)` and the predictions' spread `(K,)`, in physical units."""

    error: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """From a spread to a standard deviation, `scale * spread + floor`, and to an interval's half-width, `quantile` times it.

    `floor` is in physical units. On the average over the `patients` calibrated on, `level` of the voxels lie inside.
    """

    scale: float
    floor: float
    quantile: float
    level: float
    patients: int

    def std(self, spread: np.ndarray) -> np.ndarray:
        """The standard deviation of the error for a `spread` of any shape, both in physical units."""
        return np.maximum(self.scale * spread + self.floor, LEAST)

    def half_width(self, spread: np.ndarray) -> np.ndarray:
        """Half the width of the interval around a prediction, in physical units."""
        return self.quantile * self.std(spread)

    @property
    def guaranteed(self) -> float:
        """The least expected coverage of a new patient, whatever the errors: `level * n / (n + 1)` of n patients.

        The worst case has none of the new patient's voxels covered (Lee, Barber and Willett 2023; Angelopoulos et al. 2024).
        """
        return self.level * self.patients / (self.patients + 1)


@dataclass(frozen=True)
class Reliability:
    """Errors by standard deviation: in bins of equally many voxels the root mean squares of both, `(bins,)`.

    `slope` is that of the line through the bins, 1 where the standard deviation is right, NaN where it is one everywhere.
    """

    std: np.ndarray
    error: np.ndarray
    slope: float

    @property
    def monotone(self) -> bool:
        """Whether the error grows from every bin to the next."""
        return bool((np.diff(self.error) > 0).all())


@dataclass(frozen=True)
class Sparsification:
    """The root mean square of the errors that remain, over that of all, as a share of the voxels is left out.

    Left out are those of the largest standard deviation, or (`oracle`) of the largest error (Ilg et al. 2018).
    """

    share: np.ndarray
    curve: np.ndarray
    oracle: np.ndarray

    @property
    def ause(self) -> float:
        """The area between both curves: 0 where the standard deviation orders voxels as their errors do."""
        return float(np.trapezoid(self.curve - self.oracle, self.share))

    @property
    def ause_random(self) -> float:
        """The same for voxels left out at random."""
        return float(np.trapezoid(1 - self.oracle, self.share))


@dataclass(frozen=True)
class Checked:
    """Intervals on patients that they were not calibrated on.

    `coverage` is the share of a patient's voxels inside, as mean over patients, with its bootstrap interval of 95 % (NaN for
    one patient); `width` the mean width of the intervals in physical units.
    """

    coverage: float
    low: float
    high: float
    width: float
    patients: int
    reliability: Reliability
    sparsification: Sparsification


def calibrate(patients: Sequence[Voxels], level: float = LEVEL) -> Calibration:
    """The calibration on `patients`, each of which weighs the same.

    A line through binned errors makes a standard deviation of the spread (neither part negative), and the `quantile` of
    errors over it is the smallest with at least `level` of the voxels inside, on the average over patients.
    """
    weights = _weights(patients)
    error, spread = _joined(patients)
    bins = _binned(error, spread, weights)
    scale, floor = _line(bins.std, bins.error)
    line = Calibration(scale, floor, 1.0, level, len(patients))
    scores = error / line.std(spread)
    quantile = float(np.quantile(scores, level, weights=weights, method="inverted_cdf"))
    return Calibration(scale, floor, quantile, level, len(patients))


def check(patients: Sequence[Voxels], calibration: Calibration) -> Checked:
    """How a calibration does on other `patients`, each of which weighs the same."""
    inside = np.array([(one.error <= calibration.half_width(one.spread)).mean() for one in patients])
    width = float(np.mean([2 * calibration.half_width(one.spread).mean() for one in patients]))
    weights = _weights(patients)
    error, spread = _joined(patients)
    std = calibration.std(spread)
    return Checked(float(inside.mean()), *interval(inside), width, len(patients), _binned(error, std, weights),
                   sparsification(error, std, weights))


def sparsification(error: np.ndarray, std: np.ndarray, weights: np.ndarray) -> Sparsification:
    """The curves of errors `(K,)` and their standard deviations `(K,)`; voxels count by `weights` `(K,)`.

    Where every standard deviation is the same it orders nothing, and the curve is flat.
    """
    square = np.square(error, dtype=np.float64)

    def remaining(by: np.ndarray) -> np.ndarray:
        order = np.argsort(by, kind="stable")
        kept = np.cumsum(weights[order])
        total = np.cumsum((weights * square)[order])
        at = np.minimum(np.searchsorted(kept, (1 - SHARES) * kept[-1] * (1 - 1e-12)), len(kept) - 1)
        whole = np.sqrt(total[-1] / kept[-1])
        return np.sqrt(total[at] / kept[at]) / whole if whole else np.ones(len(SHARES))

    curve = remaining(std) if np.ptp(std) > 0 else np.ones(len(SHARES))
    return Sparsification(SHARES, curve, remaining(error))


def numbers(found: Checked, calibration: Calibration) -> dict[str, object]:
    """Both as JSON has them: None for what is no number."""
    values = {"level": calibration.level, "coverage": found.coverage, "coverage_low": found.low,
              "coverage_high": found.high, "patients": found.patients, "calibration_patients": calibration.patients,
              "guaranteed": calibration.guaranteed, "width": found.width, "scale": calibration.scale,
              "floor": calibration.floor, "quantile": calibration.quantile, "slope": found.reliability.slope,
              "ause": found.sparsification.ause, "ause_random": found.sparsification.ause_random}
    curves: Mapping[str, np.ndarray] = {
        "std": found.reliability.std, "error": found.reliability.error, "share": found.sparsification.share,
        "sparsification": found.sparsification.curve, "oracle": found.sparsification.oracle}
    return {**{name: value if np.isfinite(value) else None for name, value in values.items()},
            "monotone": found.reliability.monotone, "curves": {name: curve.tolist() for name, curve in curves.items()}}


def _weights(patients: Sequence[Voxels]) -> np.ndarray:
    """Of every voxel, so that those of a patient add up to 1."""
    return np.concatenate([np.full(len(one.error), 1 / len(one.error)) for one in patients])


def _joined(patients: Sequence[Voxels]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([one.error for one in patients]), np.concatenate([one.spread for one in patients])


def _binned(error: np.ndarray, std: np.ndarray, weights: np.ndarray) -> Reliability:
    levels = np.linspace(0, 1, BINS + 1)[1:-1]
    edges = np.unique(np.quantile(std, levels, weights=weights, method="inverted_cdf"))
    at = np.searchsorted(edges, std)
    whole = np.bincount(at, weights)
    used = whole > 0

    def mean_square(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(at, weights * np.square(values, dtype=np.float64))
        return np.sqrt(sums[used] / whole[used])

    x, y = mean_square(std), mean_square(error)
    slope = float(np.polyfit(x, y, 1)[0]) if np.ptp(x) > 1e-6 * max(x.max(), LEAST) else float("nan")
    return Reliability(x, y, slope)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the least-squares line, neither negative; of one point the constant."""
    if np.ptp(x) <= 1e-6 * max(x.max(), LEAST):
        return 0.0, float(np.sqrt(np.mean(np.square(y))))
    slope, intercept = np.polyfit(x, y, 1)
    if slope < 0:
        return 0.0, float(y.mean())
    if intercept < 0:
        return float((x * y).sum() / np.square(x).sum()), 0.0
    return float(slope), float(intercept)
