import warnings

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from oracles import cross_entropy
from shifted_gaussians import bayes_posteriors, gaussian_sample, long_tail

from lade_tf.label_shift import fit_carried_prior
from lade_tf.label_shift.carried_prior import find_contradiction, warn_of_contradiction

NUM_CLASSES = 5
TRAINING = long_tail(NUM_CLASSES, 50)
UNIFORM = np.full(NUM_CLASSES, 1 / NUM_CLASSES)


def sample(carried, per_class=40, share=None, temperature=2.0, seed=0):
    """Returns logits that carry a prior, right but for a temperature, and labels."""
    size = per_class * len(carried)
    share = np.full(len(carried), 1 / len(carried)) if share is None else share
    x, labels = gaussian_sample(share, size, np.random.default_rng(seed), separation=1.5)
    return temperature * np.log(bayes_posteriors(x, carried, 1.5)), labels


def power(prior, exponent):
    return prior**exponent / (prior**exponent).sum()


@pytest.mark.parametrize("share", [UNIFORM, TRAINING])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("taken", [None, TRAINING])
def test_temperature_and_power_of_the_training_prior_are_found(exponent, share, taken):
    carried = power(TRAINING, exponent)
    logits, labels = sample(carried, per_class=800, share=share)
    fit = fit_carried_prior(logits, labels, TRAINING, taken)
    assert fit.temperature == pytest.approx(2, abs=0.15)
    assert fit.tau + (taken is not None) == pytest.approx(exponent, abs=0.1)
    assert np.abs(np.log(fit.prior / carried)).max() < 0.35


def test_the_penalised_likelihood_is_highest():
    logits, labels = sample(UNIFORM, per_class=8)
    fit = fit_carried_prior(logits, labels, TRAINING, TRAINING)
    counts = np.bincount(labels, minlength=NUM_CLASSES)
    shares, log_prior = counts / len(labels), np.log(TRAINING)

    def scores(parameters):
        carried = log_prior * (1 + parameters[1]) + parameters[2:]
        return logits / parameters[0], np.log(shares) - carried

    found = np.concatenate([[fit.temperature, fit.tau], fit.biases])
    scaled, shift = scores(found)
    posteriors = scipy.special.softmax(scaled + shift, axis=1)
    free = 1 - (posteriors * (1 - posteriors)).sum(axis=0) / counts

    def loss(parameters):
        scaled, shift = scores(parameters)
        penalty = free @ parameters[2:] ** 2 / fit.bias_scale**2 / 2
        return cross_entropy(scaled, labels, shift).sum() + penalty

    best = scipy.optimize.minimize(loss, found, method="BFGS").fun
    assert loss(found) < best + 0.01
    expected = np.exp(log_prior * (1 + fit.tau) + fit.biases)
    np.testing.assert_allclose(fit.prior, expected / expected.sum())


def test_what_is_no_power_of_the_training_prior_takes_biases():
    carried = TRAINING * [1, 1, 12, 1, 1]
    carried /= carried.sum()
    logits, labels = sample(carried, per_class=100)
    fit = fit_carried_prior(logits, labels, TRAINING, TRAINING)
    assert np.abs(np.log(fit.prior / carried)).max() < 0.6
    right = sample(TRAINING, per_class=100, seed=1)
    other = fit_carried_prior(*right, TRAINING, TRAINING)
    assert np.abs(np.log(other.prior / TRAINING)).max() < 0.35
    assert other.bias_scale < fit.bias_scale


def test_a_class_without_samples_has_the_common_form():
    share = np.array([0.4, 0.3, 0.2, 0.1, 0.0])
    logits, labels = sample(power(TRAINING, 0.5), per_class=200, share=share)
    fit = fit_carried_prior(logits, labels, TRAINING)
    assert fit.biases[4] == pytest.approx(0, abs=1e-6) and fit.tau == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_scale_of_the_logits_is_that_of_the_temperature_alone(factor):
    logits, labels = sample(TRAINING, per_class=9)
    expected = fit_carried_prior(logits, labels, TRAINING)
    fit = fit_carried_prior(factor * logits, labels, TRAINING)
    assert fit.temperature == pytest.approx(factor * expected.temperature, rel=1e-3)
    np.testing.assert_allclose(fit.prior, expected.prior, rtol=1e-3)


def test_balanced_training_data_leave_no_power_and_a_flat_prior():
    carried = np.array([0.1, 0.4, 0.2, 0.2, 0.1])
    logits, labels = sample(carried, per_class=90)
    fit = fit_carried_prior(logits, labels, UNIFORM, carried)
    assert fit.tau == 0
    assert np.abs(np.log(fit.prior / carried)).max() < 0.4


def test_a_sample_that_some_power_tells_without_an_error_is_refused():
    labels = np.arange(NUM_CLASSES).repeat(3)
    logits = 4 * np.eye(NUM_CLASSES)[labels] + 3 * np.log(TRAINING)
    assert (logits.argmax(axis=1) != labels).any()  # the logits alone do err
    with pytest.raises(ValueError, match="without an error: give more samples"):
        fit_carried_prior(logits, labels, TRAINING)
    assert find_contradiction(logits, labels, TRAINING) is None


def test_logits_that_tell_nothing_are_refused():
    logits, labels = sample(UNIFORM, per_class=9)
    with pytest.raises(ValueError, match="no better than chance"):
        fit_carried_prior(-logits, labels, TRAINING)
    assert find_contradiction(-logits, labels, TRAINING) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logits": np.zeros(4)}, r"logits must be floats \[samples, classes\]"),
        ({"logits": np.full([4, 3], np.nan)}, "logits must be finite"),
        ({"labels": [0, 1, 2]}, "labels must hold 4 samples; got 3"),
        ({"labels": [1, 1, 1, 1]}, "labels must be of at least two classes"),
        ({"source_prior": [0.5, 0.5]}, "source_prior must have 3 entries"),
        ({"training_prior": [0.5, 0.5, 0]}, "training_prior must hold probabilities > 0"),
    ],
)
def test_bad_input_is_refused(changed, message):
    arguments = {"logits": np.eye(4, 3), "labels": [0, 1, 2, 0], "training_prior": [0.5, 0.3, 0.2]}
    with pytest.raises(ValueError, match=message):
        fit_carried_prior(**{**arguments, **changed})


@pytest.mark.parametrize("per_class", [4, 40])
@pytest.mark.parametrize(
    ("carried", "taken"), [(UNIFORM, TRAINING), (TRAINING, None), (TRAINING, power(TRAINING, -1))]
)
def test_another_prior_than_the_one_taken_is_noticed(carried, taken, per_class):
    found = find_contradiction(*sample(carried, per_class), TRAINING, taken)
    expected = UNIFORM if taken is None else taken
    np.testing.assert_allclose(found.taken, expected)
    assert found.p_value < 0.01
    assert np.abs(np.log(found.found / carried)).mean() < 0.7


def test_a_weight_of_one_class_is_noticed_from_ten_images_a_class_on():
    carried = TRAINING * [1, 1, 12, 1, 1] / (TRAINING * [1, 1, 12, 1, 1]).sum()
    found = find_contradiction(*sample(carried), TRAINING, TRAINING)
    assert np.argmax(found.found / found.taken) == 2


def without_most(logits, labels, kept):
    """Leaves `kept`, {class: samples}, of some classes of a sample."""
    drop = [np.flatnonzero(labels == c)[number:] for c, number in kept.items()]
    drop = np.concatenate(drop)
    return np.delete(logits, drop, axis=0), np.delete(labels, drop)


@pytest.mark.parametrize("kept", [{4: 3}, {4: 0}, {3: 9, 4: 1}])
def test_a_weight_is_noticed_where_other_classes_have_few_images(kept):
    carried = TRAINING * [1, 1, 12, 1, 1] / (TRAINING * [1, 1, 12, 1, 1]).sum()
    found = find_contradiction(*without_most(*sample(carried), kept), TRAINING, TRAINING)
    assert np.argmax(found.found / found.taken) == 2 and found.p_value < 0.005


def test_classes_of_few_images_keep_the_common_form():
    carried = np.array([1, 1, 12, 1, 1]) / 16
    logits, labels = without_most(*sample(carried, per_class=80), {3: 9, 4: 5})
    # Of a balanced training set there is no power: what is left of the common form is 1.
    found = find_contradiction(logits, labels, UNIFORM)
    assert found.found[3] == pytest.approx(found.found[4])
    # Two classes with ten images tell their own difference alone.
    few = without_most(logits, labels, {0: 9})
    assert find_contradiction(*few, UNIFORM) is None


@pytest.mark.parametrize("per_class", [2, 3, 10, 30])
def test_the_right_prior_is_hardly_ever_contradicted(per_class, monkeypatch):
    # At a level of 5 % each, and without what must be so large as to matter.
    monkeypatch.setattr("lade_tf.label_shift.carried_prior.SIGNIFICANCE", 0.05)
    monkeypatch.setattr("lade_tf.label_shift.carried_prior.CONTRADICTION", 1e-3)
    samples = (sample(TRAINING, per_class, seed=seed) for seed in range(30))
    contradictions = [find_contradiction(*one, TRAINING, TRAINING) for one in samples]
    # 10 % and three standard deviations.
    assert sum(found is not None for found in contradictions) <= 7


def test_nor_is_it_where_some_classes_have_few_images(monkeypatch):
    monkeypatch.setattr("lade_tf.label_shift.carried_prior.SIGNIFICANCE", 0.05)
    monkeypatch.setattr("lade_tf.label_shift.carried_prior.CONTRADICTION", 1e-3)
    samples = (
        without_most(*sample(TRAINING, 12, share=UNIFORM, seed=seed), {3: 3, 4: 1})
        for seed in range(20)
    )
    contradictions = [find_contradiction(*one, TRAINING, TRAINING) for one in samples]
    assert sum(found is not None for found in contradictions) <= 6


def test_what_is_small_is_no_contradiction():
    logits, labels = sample(power(TRAINING, 0.9), per_class=2000)
    assert find_contradiction(logits, labels, TRAINING, TRAINING) is None


@pytest.mark.parametrize("num_classes", [5, 12])
def test_the_warning_names_both_priors(num_classes):
    training, uniform = long_tail(num_classes, 50), np.full(num_classes, 1 / num_classes)
    found = find_contradiction(*sample(uniform, 30), training, training)
    taken = rf"{training[-1]:.3g}"
    with pytest.warns(UserWarning, match=rf"contradict the .*{taken}.*another order.*prior=True"):
        warn_of_contradiction(found)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warn_of_contradiction(None)
