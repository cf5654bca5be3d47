"""The strengths of reference methods, on scores that are known functions of them."""

import numpy as np
import pytest

from medjax.evaluation.references import MOST, _search
from medjax.types import Metric

GRID = (0.05, 0.1, 0.2, 0.4, 0.8)


@pytest.mark.parametrize("lower_is_better", [False, True])
@pytest.mark.parametrize("best", [0.0125, *GRID, 1.6, 6.4])
def test_the_best_strength_is_found_on_the_grid_at_its_ends_and_beyond(best, lower_is_better):
    tried = []

    def score(strength):
        tried.append(strength)
        distance = abs(np.log(strength / best))
        return distance if lower_is_better else -distance

    assert _search(GRID, score, Metric("score", lower_is_better=lower_is_better)) == best
    assert len(tried) == len(set(tried)) <= MOST


@pytest.mark.parametrize("best", [1, 2, 5, 7])
def test_whole_numbers_go_on_by_one_and_end_at_1(best):
    assert _search((1.0, 2.0, 3.0, 4.0, 5.0), lambda strength: -abs(strength - best), Metric("score")) == best


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_a_strength_without_a_score_is_never_the_best(lower_is_better):
    """At which a method has diverged, say."""
    def score(strength):
        distance = abs(np.log(strength / 0.1))
        return np.nan if strength > 0.15 else distance if lower_is_better else -distance

    assert _search(GRID, score, Metric("score", lower_is_better=lower_is_better)) == 0.1


def test_a_score_that_improves_for_ever_ends_the_search():
    assert _search(GRID, lambda strength: strength, Metric("score")) > 10
