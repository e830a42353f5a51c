"""Focal, class-balanced focal and logit adjustment against float64 NumPy."""

import fractions

import keras
import numpy as np
import pytest
import tensorflow as tf

from lade_tf import losses, priors

COUNTS = [60, 30, 8, 2]


def make_batch(size=12, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (size, 4)).astype(np.float32)
    return logits, rng.integers(0, 4, size)


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_its_formula(gamma):
    logits, labels = make_batch()
    true = softmax(logits)[np.arange(12), labels]
    expected = -((1 - true) ** gamma) * np.log(true)
    values = losses.Focal(gamma, reduction="none")(labels, logits)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_keeps_its_digits_where_the_classifier_is_nearly_sure(gamma):
    logits = np.zeros((6, 4), np.float32)
    logits[:, 1] = [6, 8, 10, 12, 13, 14]  # 1 − exp(−ce) would have three digits at most
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    entropy = plain(np.ones(6), logits).numpy().astype(np.float64)
    assert 0 < entropy[-1] < 1e-5
    values = losses.Focal(gamma, reduction="none")(np.ones(6, int), logits)
    np.testing.assert_allclose(values, (-np.expm1(-entropy)) ** gamma * entropy, rtol=1e-5)


def test_focal_without_gamma_is_cross_entropy():
    logits, labels = make_batch()
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    np.testing.assert_allclose(losses.Focal(0.0)(labels, logits), plain(labels, logits), rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_class_balanced_focal_is_its_formula(gamma):
    logits, labels = make_batch()
    beta = 0.99
    weights = (1 - beta) / (1 - beta ** np.array(COUNTS, np.float64))
    weights *= 4 / weights.sum()
    sigmoid = 1 / (1 + np.exp(-logits.astype(np.float64)))
    likelihood = np.where(np.eye(4)[labels] == 1, sigmoid, 1 - sigmoid)
    expected = weights[labels] * ((1 - likelihood) ** gamma * -np.log(likelihood)).sum(axis=1)
    values = losses.ClassBalancedFocal(COUNTS, beta, gamma, reduction="none")(labels, logits)
    np.testing.assert_allclose(values, expected, rtol=1e-4)


def test_class_balanced_focal_without_gamma_is_class_balanced_binary_cross_entropy():
    logits, labels = make_batch()
    weights = losses.effective_number_weights(COUNTS, 0.9)[labels]
    binary = keras.losses.BinaryCrossentropy(from_logits=True, reduction="none")
    expected = 4 * weights * binary(np.eye(4, dtype=np.float32)[labels], logits).numpy()
    values = losses.ClassBalancedFocal(COUNTS, 0.9, 0.0, reduction="none")(labels, logits)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_shares_have_no_effective_numbers():
    with pytest.raises(ValueError, match="class_counts must hold whole numbers.*shares"):
        losses.effective_number_weights([0.9, 0.1], 0.99)


def test_effective_numbers_go_from_uniform_to_inverse_counts():
    np.testing.assert_allclose(losses.effective_number_weights(COUNTS, 0), 1)
    inverse = 1 / np.array(COUNTS, np.float64)
    nearly = losses.effective_number_weights(COUNTS, 1 - 1e-12)
    np.testing.assert_allclose(nearly, 4 * inverse / inverse.sum(), rtol=1e-9)
    smooth = losses.effective_number_weights([59, 29, 7, 0], 0.99, zero_count="smooth")
    np.testing.assert_allclose(smooth, losses.effective_number_weights([60, 30, 8, 1], 0.99))


def test_effective_numbers_keep_their_digits_for_a_beta_next_to_1():
    beta = 1 - 1e-8
    inverse = np.array([float(1 / (1 - fractions.Fraction(beta) ** n)) for n in (60, 30, 8)])
    weights = losses.effective_number_weights([60, 30, 8], beta)
    np.testing.assert_allclose(weights, 3 * inverse / inverse.sum(), rtol=1e-13)


def test_logit_adjustment_goes_from_cross_entropy_to_balanced_softmax():
    logits, labels = make_batch()
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    none, half, whole = (losses.LogitAdjustment(COUNTS, tau) for tau in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(none(labels, logits), plain, rtol=1e-6)
    np.testing.assert_allclose(
        whole(labels, logits), losses.BalancedSoftmax(COUNTS)(labels, logits), rtol=1e-6
    )
    np.testing.assert_allclose(none.source_prior, priors.class_prior(COUNTS))
    np.testing.assert_allclose(whole.source_prior, 0.25)
    np.testing.assert_allclose(half.source_prior, np.sqrt(COUNTS) / np.sqrt(COUNTS).sum())
    adjusted = softmax(logits + 0.5 * np.log(np.array(COUNTS) / 100))
    expected = -np.log(adjusted[np.arange(12), labels]).mean()
    assert half(labels, logits).numpy() == pytest.approx(expected, rel=1e-5)


LOSSES = {
    "focal": lambda: losses.Focal(0.5),
    "cb_focal": lambda: losses.ClassBalancedFocal(COUNTS, 0.9999, 0.5),
    "logit_adjustment": lambda: losses.LogitAdjustment(COUNTS, 2.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_finite_for_extreme_logits(name):
    logits = tf.constant([[80.0, -80, 0, 0], [-80, 80, 0, 0], [0, 0, 80, -80]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = LOSSES[name]()([0, 0, 2], logits)
    assert np.isfinite(value) and np.isfinite(tape.gradient(value, logits)).all()


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_finite_differences(name):
    logits, labels = make_batch(size=3)
    loss = LOSSES[name]()
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = loss(labels, variable)
    gradient = tape.gradient(value, variable).numpy()
    step = 1e-2
    for index in np.ndindex(logits.shape):
        up, down = logits.copy(), logits.copy()
        up[index] += step
        down[index] -= step
        slope = (loss(labels, up).numpy() - loss(labels, down).numpy()) / (2 * step)
        assert gradient[index] == pytest.approx(slope, abs=2e-3, rel=2e-2)


@pytest.mark.parametrize("name", LOSSES)
def test_labels_out_of_range_raise_and_are_nan_under_xla(name):
    loss = LOSSES[name]()
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=r"integers in 0\.\.3"):
        loss([0, 4], np.zeros((2, 4), np.float32))
    compiled = tf.function(lambda y, f: loss(y, f), jit_compile=True)
    assert np.isnan(compiled(np.array([0, 4]), np.zeros((2, 4), np.float32)).numpy())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.Focal(-1), "gamma must be a finite number >= 0; got -1"),
        (lambda: losses.ClassBalancedFocal(COUNTS, 1.0), r"beta must be a number in \[0, 1\)"),
        (lambda: losses.ClassBalancedFocal(COUNTS, -0.1), r"beta must be a number in \[0, 1\)"),
        (lambda: losses.ClassBalancedFocal([3, 0]), 'numbers > 0 .zero_count="smooth"'),
        (lambda: losses.LogitAdjustment(COUNTS, -1), "tau must be a finite number >= 0; got -1"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
