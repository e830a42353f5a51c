"""The paired bootstrap against a loop that resamples."""

import numpy as np
import pytest
from oracles import resampled_interval
from reproduction import comparison


def gain_bootstrap(correct, other, weights, **options):
    return comparison.paired_bootstrap(correct.astype(float) - other, weights, **options)


def test_the_paired_bootstrap_is_that_of_a_resampling_loop():
    rng = np.random.default_rng(0)
    correct, other = rng.random(400) < 0.7, rng.random(400) < 0.6
    weights = rng.uniform(0.1, 2, 400)
    difference, *interval = gain_bootstrap(correct, other, weights, resamples=4000)
    expected = np.average(correct, weights=weights) - np.average(other, weights=weights)
    assert difference == pytest.approx(expected)
    np.testing.assert_allclose(interval, resampled_interval(correct, other, weights), atol=0.006)


def test_the_paired_bootstrap_decides_clear_cases_and_profits_from_pairing():
    rng = np.random.default_rng(0)
    correct = rng.random(1000) < 0.5
    difference, low, high = gain_bootstrap(correct, correct, np.ones(1000))
    assert difference == low == high == 0
    better = correct.copy()
    better[np.flatnonzero(~correct)[:30]] = True  # 30 of 1000, never worse
    difference, low, high = gain_bootstrap(better, correct, np.ones(1000))
    assert difference == pytest.approx(0.03) and 0.015 < low < high < 0.045
    unrelated = rng.permutation(correct)
    _, low, high = gain_bootstrap(correct, unrelated, np.ones(1000))
    assert low < 0 < high
