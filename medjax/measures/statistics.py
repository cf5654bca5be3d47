"""How sure a comparison is: intervals over patients, paired tests, and their correction for several."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from medjax.measures.summary import mean_of_numbers
from medjax.types import Metric, Value

DRAWS = 10_000
LEVEL = 0.95
Summarise = Callable[[Sequence[Mapping[str, Value]]], Mapping[str, Value]]
EXACT = 12  # patients up to which every exchange of signs is counted


@dataclass(frozen=True)
class Standing:
    """One method by one metric: the mean over patients with its interval, and how it differs from the method compared with.

    `difference` (the other less this one) and `p`, corrected for the number of methods, are NaN for that method itself and
    where there are fewer than two patients, as the interval then is.
    """

    mean: float
    low: float
    high: float
    difference: float = float("nan")
    p: float = float("nan")


    @property
    def numbers(self) -> dict[str, float | None]:
        """As JSON has them: None for what is no number."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}

    @classmethod
    def of(cls, numbers: Mapping[str, float | None]) -> "Standing":
        """The standing that has these `numbers`."""
        return cls(**{name: float("nan") if value is None else value for name, value in numbers.items()})


def by_patient(values: Sequence[float], patients: Sequence[str]) -> np.ndarray:
    """The mean of each patient's samples that have a value, `(patients,)`, in the order in which patients first come."""
    groups: dict[str, list[float]] = {}
    for value, patient in zip(values, patients, strict=True):
        groups.setdefault(patient, []).append(value)
    return np.array([np.mean([v for v in group if np.isfinite(v)] or [np.nan]) for group in groups.values()])


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The bootstrap interval of the mean over patients (percentiles; Efron 1979); NaN for fewer than two."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(0).choice(values, (DRAWS, len(values))).mean(1)
    low, high = np.percentile(drawn, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def paired_p(one: np.ndarray, other: np.ndarray) -> float:
    """Two-sided p of the mean difference over patients, by exchanging the signs of differences (Fisher 1935).

    Every exchange is counted up to 12 patients, 10,000 drawn ones beyond. NaN for fewer than two patients.
    """
    difference = other - one
    difference = difference[np.isfinite(difference)]
    if len(difference) < 2:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = stats.permutation_test(
            (difference,), lambda d, axis: d.mean(axis), permutation_type="samples", vectorized=True,
            n_resamples=2 ** len(difference) if len(difference) <= EXACT else DRAWS, rng=np.random.default_rng(0))
    return float(found.pvalue)


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """p values corrected for their number (Holm 1979); what is NaN is no test."""
    found = {name: float("nan") for name in values}
    tested = sorted((p, name) for name, p in values.items() if not np.isnan(p))
    largest = 0.0
    for rank, (p, name) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        found[name] = largest
    return found


def standings(samples: Sequence[Mapping[str, Mapping[str, Value]]], patients: Sequence[str], metric: Metric,
              leader: str = "", summarise: Summarise | None = None) -> dict[str, Standing]:
    """Every method of `samples` (metrics by method, for each sample) by a metric, compared with the method `leader`.

    Without a `leader` they are compared with the best, and come from the best to the worst. A pooled metric of a patient is
    what `summarise` makes of the patient's samples. Empty where the metric is not one number for each sample or patient.
    """
    if metric.pooled and summarise is not None:
        samples, patients = _pooled(samples, patients, summarise)
    rows = {row: [sample[row].get(metric.name) for sample in samples] for row in samples[0]} if samples else {}
    numbers = {row: by_patient([float(v) for v in values], patients)  # type: ignore[arg-type]
               for row, values in rows.items() if all(isinstance(v, int | float) for v in values)}
    means = {row: mean_of_numbers(values) for row, values in numbers.items()}
    if not leader:
        sign = 1 if metric.lower_is_better else -1
        numbers = dict(sorted(numbers.items(), key=lambda item: (math.isnan(means[item[0]]), sign * means[item[0]])))
        leader = next(iter(numbers), "")
    if leader not in numbers:
        return {}
    against = numbers[leader]
    p = holm({row: paired_p(values, against) for row, values in numbers.items() if row != leader})
    found = {}
    for row, values in numbers.items():
        with np.errstate(invalid="ignore"):
            gap = against - values
        found[row] = Standing(means[row], *interval(values)) if row == leader else Standing(
            means[row], *interval(values), mean_of_numbers(gap) if np.isfinite(gap).sum() > 1 else float("nan"), p[row])
    return found


def _pooled(samples: Sequence[Mapping[str, Mapping[str, Value]]], patients: Sequence[str],
            summarise: Summarise) -> tuple[list[dict[str, Mapping[str, Value]]], list[str]]:
    """One sample for each patient, its metrics those of all the patient's samples together, and the patients."""
    of: dict[str, list[Mapping[str, Mapping[str, Value]]]] = {}
    for sample, patient in zip(samples, patients, strict=True):
        of.setdefault(patient, []).append(sample)
    return [{row: summarise([sample[row] for sample in own]) for row in own[0]} for own in of.values()], list(of)
