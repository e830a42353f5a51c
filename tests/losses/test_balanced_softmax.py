import keras
import numpy as np
import pytest
from scipy.special import log_softmax

from lade_tf.losses import BalancedSoftmax, LogitAdjustment

COUNTS = np.array([400, 60, 9, 2])
rng = np.random.default_rng(0)
LOGITS, LABELS = rng.normal(size=(7, 4)) * 3, rng.integers(0, 4, 7)


PRIOR = COUNTS / COUNTS.sum()


def oracle(smoothing, tau):
    """Cross-entropy with the target (1 − ε)·one-hot + ε·π, in float64."""
    log_probabilities = log_softmax(LOGITS + tau * np.log(PRIOR), axis=1)
    targets = (1 - smoothing) * np.eye(4)[LABELS] + smoothing * PRIOR
    return -(targets * log_probabilities).sum(axis=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_the_target_is_mixed_with_the_training_prior(smoothing):
    options = {"label_smoothing": smoothing, "reduction": "none"}
    for loss, tau in (
        (BalancedSoftmax(COUNTS, **options), 1.0),
        (LogitAdjustment(COUNTS, tau=0.5, **options), 0.5),
        (LogitAdjustment(COUNTS, tau=0.0, **options), 0.0),
    ):
        np.testing.assert_allclose(loss(LABELS, LOGITS), oracle(smoothing, tau), rtol=1e-5)


@pytest.mark.parametrize("value", [1.0, -0.1, "much"])
def test_a_bad_share_is_refused(value):
    for kind in (BalancedSoftmax, LogitAdjustment):
        with pytest.raises(ValueError, match="label_smoothing must be a"):
            kind(COUNTS, label_smoothing=value)


def test_balanced_softmax_of_uniform_counts_is_plain_cross_entropy():
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    uniform = BalancedSoftmax([7, 7, 7, 7])
    np.testing.assert_allclose(uniform(LABELS, LOGITS), plain(LABELS, LOGITS), rtol=1e-6)
