"""What readers of images say: agreement within and between readers, and two methods compared by the same readers.

Matrices have a row for each target (patient, image) and a column for each judge (reader), as Shrout and Fleiss have them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import special

from medjax.measures.summary import mean_of_numbers

LEVEL = 0.95
NAN = float("nan")


@dataclass(frozen=True)
class MeanSquares:
    """Of a matrix `(targets, judges)`: between targets, between judges, and of the residual (two-way ANOVA)."""

    targets: float
    judges: float
    residual: float


@dataclass(frozen=True)
class Correlation:
    """Intraclass correlations of single ratings by two-way ANOVA (Shrout and Fleiss 1979).

    `agreement` is ICC(2,1): judges are a sample of those there are, and how much they differ counts. `consistency` is
    ICC(3,1): a constant difference between judges does not count.
    """

    agreement: float
    consistency: float


@dataclass(frozen=True)
class Difference:
    """One method less another: the mean, its 95 % interval, two-sided `p` of no difference, and one-sided
    `p_noninferior` of being worse by the margin or more. NaN for fewer than two patients, or where they do not vary.
    """

    mean: float
    low: float = NAN
    high: float = NAN
    p: float = NAN
    p_noninferior: float = NAN


def weighted_kappa(one: Sequence[float], other: Sequence[float]) -> float:
    """Agreement of two series of numbered categories beyond chance, with weights by the squared distance (Cohen 1968).

    1 is complete agreement, 0 what chance gives. NaN where both have only one category, and the same.
    """
    a, b = np.asarray(one, float), np.asarray(other, float)
    by_chance = np.square(a[:, None] - b[None]).mean() if a.size else 0.0
    return float(1 - np.square(a - b).mean() / by_chance) if by_chance else NAN


def mean_kappa(answers: np.ndarray) -> float:
    """The mean `weighted_kappa` over all pairs of judges (Light 1971) of `(targets, judges)`; NaN for fewer than two."""
    pairs = combinations(range(answers.shape[1]), 2)
    return mean_of_numbers([weighted_kappa(answers[:, i].tolist(), answers[:, j].tolist()) for i, j in pairs])


def mean_squares(values: np.ndarray) -> MeanSquares:
    """The mean squares of `(targets, judges)`, at least two of each."""
    targets, judges = values.shape
    mean, rows, columns = values.mean(), values.mean(1), values.mean(0)
    residual = values - rows[:, None] - columns[None] + mean
    return MeanSquares(float(judges * np.square(rows - mean).sum() / (targets - 1)),
                       float(targets * np.square(columns - mean).sum() / (judges - 1)),
                       float(np.square(residual).sum() / ((targets - 1) * (judges - 1))))


def intraclass_correlation(ratings: np.ndarray) -> Correlation:
    """ICC(2,1) and ICC(3,1) of `(targets, judges)`; NaN for fewer than two of either, and where nothing varies."""
    n, k = ratings.shape
    if n < 2 or k < 2:
        return Correlation(NAN, NAN)
    found = mean_squares(ratings)
    between = found.targets - found.residual
    absolute = found.targets + (k - 1) * found.residual + k * (found.judges - found.residual) / n
    relative = found.targets + (k - 1) * found.residual
    return Correlation(between / absolute if absolute > 0 else NAN, between / relative if relative > 0 else NAN)


def standard_error(values: np.ndarray) -> tuple[float, float]:
    """The standard error of the mean of `(patients, readers)`, and its degrees of freedom.

    Patients and, where there are several, readers are samples of those there are (Dorfman, Berbaum and Metz 1992); the
    degrees of freedom are Satterthwaite's (1946). NaN for fewer than two patients.
    """
    patients, readers = values.shape
    if patients < 2:
        return NAN, NAN
    if readers < 2:
        return float(values.std(ddof=1)) / math.sqrt(patients), patients - 1
    found = mean_squares(values)
    parts = [(found.targets, patients - 1)]
    if found.judges > found.residual:
        parts += [(found.judges, readers - 1), (-found.residual, (patients - 1) * (readers - 1))]
    total = sum(square for square, _ in parts)
    freedom = total**2 / sum(square**2 / df for square, df in parts) if total > 0 else patients - 1
    return math.sqrt(max(total, 0.0) / values.size), freedom


def rating_difference(differences: np.ndarray, margin: float) -> Difference:
    """The mean of differences between two methods' ratings, `(patients, readers)`, by Student's t (see `standard_error`)."""
    mean, (error, freedom) = float(differences.mean()), standard_error(differences)
    if not error > 0:
        return Difference(mean)
    reach = float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return Difference(mean, mean - reach, mean + reach, 2 * float(special.stdtr(freedom, -abs(mean) / error)),
                      float(special.stdtr(freedom, -(mean + margin) / error)))


def preference_difference(wins: np.ndarray, losses: np.ndarray, answers: int, margin: float) -> Difference:
    """The share that prefers a method less the share that prefers the other, in what is `answers` answers in all.

    `wins` and `losses` `(patients, readers)` are shares; the rest has no preference. It is Tango's (1998) score interval
    and test of paired proportions, for the effective number of answers (`effective_answers`).
    """
    won, lost = float(wins.mean()), float(losses.mean())
    n = effective_answers(wins, losses, answers)
    if not n > 0:
        return Difference(won - lost)
    low, high = tango_interval(won * n, lost * n, n)
    return Difference(won - lost, low, high, 2 * float(special.ndtr(-abs(tango_score(won * n, lost * n, n, 0.0)))),
                      float(special.ndtr(-tango_score(won * n, lost * n, n, -margin))))


def effective_answers(wins: np.ndarray, losses: np.ndarray, answers: int) -> float:
    """How many independent answers say as much as these do, which patients and readers have in common.

    That is their number over the design effect, less what the variance's degrees of freedom take (Korn and Graubard 1998).
    Where all answers are the same it is the number of patients. NaN for fewer than two patients.
    """
    patients, won, lost = len(wins), float(wins.mean()), float(losses.mean())
    error, freedom = standard_error(wins - losses)
    if math.isnan(error):
        return NAN
    alone = (won + lost - (won - lost) ** 2) / (answers - 1)  # the variance of the mean of independent answers
    if alone <= 1e-12:
        return float(patients)
    known = min(float(answers), answers * alone / error**2) if error > 0 else float(answers)
    quantile = (1 + LEVEL) / 2
    return known * float(special.stdtrit(answers - 1, quantile) / special.stdtrit(min(freedom, answers - 1), quantile)) ** 2


def tango_score(wins: float, losses: float, n: float, difference: float) -> float:
    """Tango's (1998) score statistic, standard normal where the proportions of `n` pairs differ by `difference`.

    `wins` and `losses` are the numbers of pairs that count for the one and the other; the rest counts for neither. Without a
    difference it is McNemar's.
    """
    linear = (2 * n - wins + losses) * difference - wins - losses
    constant = losses * difference * (1 - difference)
    lost = (math.sqrt(max(linear**2 + 8 * n * constant, 0.0)) - linear) / (4 * n)  # its most likely share of losses
    variance = n * (2 * lost + difference * (1 - difference))
    distance = wins - losses - n * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if abs(distance) > 1e-9 * n else 0.0
    return distance / math.sqrt(variance)


def tango_interval(wins: float, losses: float, n: float) -> tuple[float, float]:
    """The 95 % interval of the difference of paired proportions: where `tango_score` does not reject."""
    from scipy import optimize  # every task imports this module, and training needs no root of a function

    z, mean, edge = float(special.ndtri((1 + LEVEL) / 2)), (wins - losses) / n, 1 - 1e-9

    def bound(sign: int) -> float:
        def excess(difference: float) -> float:
            return abs(tango_score(wins, losses, n, difference)) - z

        if sign * mean >= edge or excess(sign * edge) <= 0:
            return float(sign)
        return float(optimize.brentq(excess, mean, sign * edge))

    return bound(-1), bound(1)
