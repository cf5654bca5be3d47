"""Intervals and tests against what SciPy and the textbooks give."""

import itertools

import numpy as np
import pytest
from scipy import stats

from medjax.measures.statistics import by_patient, holm, interval, paired_p, standings
from medjax.types import Metric


def test_the_interval_covers_the_mean_as_often_as_it_says():
    random, inside = np.random.default_rng(0), 0
    for _ in range(200):
        low, high = interval(random.normal(3.0, 2.0, 40))
        inside += low <= 3.0 <= high
    assert 0.88 < inside / 200 < 0.99
    low, high = interval(random.normal(3.0, 2.0, 400))
    assert (high - low) == pytest.approx(2 * 1.96 * 2.0 / 20, rel=0.15)
    assert np.isnan(interval(np.array([1.0]))).all()


def test_the_paired_test_counts_every_exchange_of_signs():
    random = np.random.default_rng(0)
    one, other = random.normal(size=7), random.normal(0.8, 1.0, 7)
    difference = other - one
    means = np.array([np.mean(difference * signs) for signs in itertools.product((1, -1), repeat=7)])
    assert paired_p(one, other) == pytest.approx((np.abs(means) >= abs(difference.mean()) - 1e-12).mean(), abs=1e-9)
    many = random.normal(size=(2, 60))
    assert paired_p(*many) == pytest.approx(stats.ttest_rel(*many).pvalue, abs=0.03)
    assert np.isnan(paired_p(one[:1], other[:1]))


def test_holm_is_the_step_down_correction():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": float("nan")})
    assert {name: found[name] for name in "abc"} == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert np.isnan(found["d"])


def test_slices_of_one_patient_are_one_observation():
    random = np.random.default_rng(0)
    patients = [f"p{i}" for i in range(6) for _ in range(10)]
    level = np.repeat(random.normal(30, 2, 6), 10)
    samples = [{"model": {"psnr": float(x + 1 + 0.1 * random.normal())}, "tv": {"psnr": float(x)}} for x in level]
    found = standings(samples, patients, Metric("psnr"), "model")
    assert found["tv"].mean == pytest.approx(level.mean())
    assert (found["tv"].low, found["tv"].high) == pytest.approx(interval(level[::10]))
    assert found["tv"].difference == pytest.approx(1, abs=0.1)
    assert found["tv"].p == pytest.approx(2 / 2**6)  # the least that six patients can give
    assert np.isnan(found["model"].p)
    assert np.isnan(standings(samples[:10], patients[:10], Metric("psnr"), "model")["tv"].p)
    assert standings([{"model": {"code": [1.0, 2.0]}}], ["a"], Metric("frechet"), "model") == {}
    np.testing.assert_array_equal(by_patient([1.0, np.nan, 3.0], ["a", "a", "b"]), [1.0, 3.0])
