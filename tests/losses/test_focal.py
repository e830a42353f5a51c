"""Focal and class-balanced focal against float64 NumPy."""

import fractions

import keras
import numpy as np
import pytest

from lade_tf import losses

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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.Focal(-1), "gamma must be a finite number >= 0; got -1"),
        (lambda: losses.ClassBalancedFocal(COUNTS, 1.0), r"beta must be a number in \[0, 1\)"),
        (lambda: losses.ClassBalancedFocal(COUNTS, -0.1), r"beta must be a number in \[0, 1\)"),
        (lambda: losses.ClassBalancedFocal([3, 0]), 'numbers > 0 .zero_count="smooth"'),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
