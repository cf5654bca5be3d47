"""Agreement of readers and comparisons by them, against published examples, scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from medjax.measures.agreement import (
    effective_answers,
    intraclass_correlation,
    mean_kappa,
    preference_difference,
    rating_difference,
    standard_error,
    tango_interval,
    tango_score,
    weighted_kappa,
)

SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
"""Ratings of six targets by four judges (Shrout and Fleiss 1979, table 2)."""


def test_intraclass_correlations_are_those_of_shrout_and_fleiss():
    found = intraclass_correlation(SHROUT_FLEISS)
    assert (round(found.agreement, 2), round(found.consistency, 2)) == (0.29, 0.71)  # table 4
    assert np.isnan(intraclass_correlation(SHROUT_FLEISS[:, :1]).agreement)
    assert np.isnan(intraclass_correlation(np.ones((6, 2))).agreement)


def test_weighted_kappa_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    one, other, third = random.integers(1, 6, (3, 60))
    other[:40] = one[:40]
    expected = cohen_kappa_score(one, other, weights="quadratic")
    assert weighted_kappa(one.tolist(), other.tolist()) == pytest.approx(expected)
    pairs = [cohen_kappa_score(a, b, weights="quadratic") for a, b in ((one, other), (one, third), (other, third))]
    assert mean_kappa(np.stack([one, other, third], 1)) == pytest.approx(np.mean(pairs))
    assert np.isnan(weighted_kappa([1, 1], [1, 1]))
    assert np.isnan(mean_kappa(one[:, None]))


def test_score_test_and_interval_of_paired_proportions():
    # Tango (1998), section 6.1: 44 pairs, 1 for the standard alone; Z = 1.709, p = 0.044 with a margin of 0.1.
    assert tango_score(0, 1, 44, -0.1) == pytest.approx(1.709, abs=5e-4)
    assert stats.norm.sf(tango_score(0, 1, 44, -0.1)) == pytest.approx(0.044, abs=5e-4)
    # R, PropCIs::scoreci.mp(20, 60, 1000)
    assert tango_interval(60, 20, 1000) == pytest.approx((0.0231, 0.0584), abs=5e-5)
    assert tango_interval(20, 60, 1000) == pytest.approx((-0.0584, -0.0231), abs=5e-5)
    assert tango_score(12, 5, 40, 0.0) == pytest.approx((12 - 5) / np.sqrt(12 + 5))  # McNemar's
    for wins, losses in ((10, 0), (0, 0), (0, 10)):  # none of them of no width, none beyond what can be
        low, high = tango_interval(wins, losses, 10)
        assert -1 <= low < high <= 1
        assert high - low > 0.5


def test_independent_answers_are_the_plain_test():
    wins, losses = np.zeros((44, 1)), np.zeros((44, 1))
    losses[0] = 1
    found = preference_difference(wins, losses, 44, 0.1)
    assert effective_answers(wins, losses, 44) == pytest.approx(44)
    assert (found.low, found.high) == pytest.approx(tango_interval(0, 1, 44))
    assert found.p_noninferior == pytest.approx(0.044, abs=5e-4)


def test_answers_that_repeat_each_other_count_once():
    random = np.random.default_rng(0)
    score = random.choice([-1, 0, 1], (30, 1), p=[0.2, 0.2, 0.6]).repeat(4, 1)  # four readers of one mind
    wins, losses = (score > 0).astype(float), (score < 0).astype(float)
    assert 20 < effective_answers(wins, losses, 120) < 32
    assert effective_answers(np.ones((5, 2)), np.zeros((5, 2)), 30) == 5
    assert effective_answers(np.ones((5, 2)) / 2, np.ones((5, 2)) / 2, 100) > 30
    assert np.isnan(effective_answers(np.ones((1, 2)), np.zeros((1, 2)), 30))


def test_one_readers_ratings_are_compared_by_students_t():
    random = np.random.default_rng(0)
    one, other = random.normal(3.5, 1, 20), random.normal(3.2, 1, 20)
    found = rating_difference((one - other)[:, None], margin=0.5)
    expected = stats.ttest_rel(one, other)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.p_noninferior == pytest.approx(stats.ttest_1samp(one - other, -0.5, alternative="greater").pvalue)
    assert np.isnan(rating_difference(np.zeros((5, 1)), 0.5).low)
    assert np.isnan(rating_difference(np.ones((1, 3)), 0.5).low)


def test_the_standard_error_is_that_of_other_patients_and_other_readers():
    random = np.random.default_rng(0)
    patients, readers, trials = 15, 4, 2000
    values = (random.normal(0, 0.8, (trials, patients, 1)) + random.normal(0, 0.3, (trials, 1, readers)) +
              random.normal(0, 1.0, (trials, patients, readers)))
    errors = np.array([standard_error(one)[0] for one in values])
    true = 0.8**2 / patients + 0.3**2 / readers + 1 / (patients * readers)
    assert values.mean((1, 2)).var() == pytest.approx(true, rel=0.1)
    assert np.mean(errors**2) == pytest.approx(true, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.2, 1.5])
def test_intervals_of_clustered_preferences_cover_as_often_as_they_say(spread):
    """Three samples of each of 12 patients by two readers; what is preferred differs between patients."""
    random, inside, trials = np.random.default_rng(1), 0, 500
    means = random.normal(0.5, spread, 200_000)
    truth = (stats.norm.sf(0.4, means) - stats.norm.cdf(-0.4, means)).mean()
    for _ in range(trials):
        score = random.normal(0.5, spread, (12, 1, 1)) + random.normal(0, 1, (12, 3, 2))
        wins, losses = (score > 0.4).mean(1), (score < -0.4).mean(1)
        found = preference_difference(wins, losses, 72, 0.1)
        inside += found.low <= truth <= found.high
    assert 0.91 < inside / trials <= 1
