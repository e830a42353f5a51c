import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax

from lade_tf import losses, priors
from lade_tf.losses import LogitAdjustment

COUNTS = np.array([400, 60, 9, 2])
PRIOR = COUNTS / COUNTS.sum()


def make_batch(size=12, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (size, 4)).astype(np.float32)
    return logits, rng.integers(0, 4, size)


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
    adjusted = softmax(logits + 0.5 * np.log(PRIOR), axis=1)
    expected = -np.log(adjusted[np.arange(12), labels]).mean()
    assert half(labels, logits).numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.5])
def test_adapted_the_smoothed_posterior_is_mixed_with_a_constant(tau):
    smoothing, posterior = 0.1, np.array([0.7, 0.2, 0.06, 0.04])
    loss = LogitAdjustment(COUNTS, tau, label_smoothing=smoothing)
    logits = tf.Variable(
        [np.log((1 - smoothing) * posterior + smoothing * PRIOR) - tau * np.log(PRIOR)]
    )
    with tf.GradientTape() as tape:
        risk = sum(p * loss([c], logits) for c, p in enumerate(posterior))
    np.testing.assert_allclose(tape.gradient(risk, logits), 0, atol=1e-7)  # their optimum
    adapted = logits.numpy()[0] - np.log(loss.source_prior)
    disentangled = posterior / PRIOR
    expected = log_softmax(np.log((1 - smoothing) * disentangled + smoothing))
    np.testing.assert_allclose(log_softmax(adapted), expected, rtol=1e-6)


def test_a_bad_strength_is_refused():
    with pytest.raises(ValueError, match="tau must be .*>= 0; got -1"):
        LogitAdjustment(COUNTS, -1)
