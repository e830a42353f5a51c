"""The paired bootstrap against a loop that resamples."""

import dataclasses

import numpy as np
import pytest
from oracles import resampled_interval
from saved_examples import cifar_sized

from lade_tf import evaluation


def test_two_classifiers_are_compared_under_every_prior():
    saved = cifar_sized()
    worse = dataclasses.replace(saved, logits=saved.logits.copy())
    worse.logits[saved.labels >= 90] = 0  # right in none of the ten rarest classes, but for one
    names = ["forward:10", "uniform", "backward:10"]
    results = evaluation.compare(saved, worse, names)
    for name in names:
        prior = evaluation.named_prior(name, saved.counts, 100)
        one, other = (evaluation.evaluate(s, prior, prior)["accuracy"] for s in (saved, worse))
        difference = results[name]
        assert difference["difference"] == pytest.approx(one - other)
        assert difference["low"] < difference["difference"] < difference["high"]
    assert results["backward:10"]["low"] > results["forward:10"]["high"] > 0
    same = evaluation.compare(saved, saved, names, "train")["uniform"]
    assert same == {"difference": 0, "low": 0, "high": 0}
    assert "forward:10" in evaluation.format_comparison(results)
    shuffled = dataclasses.replace(saved, labels=saved.labels[::-1])
    with pytest.raises(ValueError, match="same test images in the same order"):
        evaluation.compare(saved, shuffled, names)
    one, other = (
        dataclasses.replace(saved, paths=np.array([f"{name}{i}" for i in range(10_000)]))
        for name in "ab"
    )
    with pytest.raises(ValueError, match="same test images .* their paths differ"):
        evaluation.compare(one, other, names)


def gain_bootstrap(correct, other, weights, **options):
    return evaluation.paired_bootstrap(correct.astype(float) - other, weights, **options)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "gains must be finite"),
        (([1.0, np.nan], [1, 1]), "gains must be finite"),
        (([1.0, 0], [1]), "weights must have the shape of gains"),
        (([1.0, 0], [1, -1]), "weights must be finite and >= 0"),
        (([1.0, 0], [0, 0]), "weights must be finite and >= 0, and positive for some"),
        (([1.0, 0], [1, 1], 0), "resamples must be an integer >= 1"),
    ],
)
def test_what_cannot_be_resampled_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluation.paired_bootstrap(*arguments)
