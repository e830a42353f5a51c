import numpy as np
import pytest
from scipy.special import log_softmax

from lade_tf.losses import BalancedSoftmax, LogitAdjustment

COUNTS = np.array([400, 60, 9, 2])
rng = np.random.default_rng(0)
LOGITS, LABELS = rng.normal(size=(7, 4)) * 3, rng.integers(0, 4, 7)


def oracle(smoothing, tau):
    """Cross-entropy with the target (1 − ε)·one-hot + ε/C, in float64."""
    log_probabilities = log_softmax(LOGITS + tau * np.log(COUNTS / COUNTS.sum()), axis=1)
    targets = (1 - smoothing) * np.eye(4)[LABELS] + smoothing / 4
    return -(targets * log_probabilities).sum(axis=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_the_target_is_mixed_with_the_uniform_one(smoothing):
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
