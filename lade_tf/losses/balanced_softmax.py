"""Balanced Softmax (Ren et al., NeurIPS 2020), the cross-entropy term of LADE."""

import keras
import numpy as np
import tensorflow as tf

from lade_tf.checks import check_number
from lade_tf.losses.base import ClassCountsLoss, checked


def check_label_smoothing(value):
    """Returns `value` as a float in [0, 1)."""
    return check_number(value, "label_smoothing", minimum=0, below=1)


def balanced_softmax(logits, labels, log_prior, tau=1.0, label_smoothing=0.0):
    """Returns the cross-entropy of softmax(f + τ·log π), one value per example.

    Training with the prior added leaves the logits free of it (equation 18 of LADE). Smoothing is
    towards π (unigram label smoothing, Pereyra et al., 2017): adapted to the uniform prior, the
    posterior is then mixed with a constant. Of labels mixed with the uniform distribution the
    division by π would make a rare class ε/(C·π) strong in every image.

    Args:
        logits: [batch, classes].
        labels: [batch] or [batch, 1] integers in 0..C−1.
        log_prior: [classes] log π of the training set.
        tau: τ ≥ 0.
        label_smoothing: ε in [0, 1): the target is (1 − ε)·label + ε·π.

    Returns:
        [batch] in nats; float32, or float64 for float64 logits. NaN under XLA where a label is
        out of range.
    """
    logits, labels, validity = checked(logits, labels, len(log_prior))
    logits += tf.constant(tau * log_prior, logits.dtype)
    values = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if label_smoothing:
        prior = tf.constant(np.exp(log_prior), logits.dtype)
        of_prior = tf.reduce_logsumexp(logits, axis=-1) - tf.linalg.matvec(logits, prior)
        values += label_smoothing * (of_prior - values)
    return values * validity


@keras.saving.register_keras_serializable("lade_tf")
class BalancedSoftmax(ClassCountsLoss):
    """Cross-entropy of softmax(f + log π), π the training prior.

    Reference: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS
    2020. The trained logits are disentangled: `source_prior` is None, as in `PriorAdaptLayer`.

    >>> loss = lade_tf.losses.BalancedSoftmax([900, 90, 10])
    >>> model.compile("sgd", loss)

    Args:
        class_counts: [classes] training samples per class.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.
        label_smoothing: share of the training prior in the target, in [0, 1); not of the uniform
            one, which would leave a prior in the logits.
    """

    ARGUMENTS = ("class_counts", "zero_count", "label_smoothing")
    source_prior = None

    def __init__(
        self,
        class_counts,
        zero_count="error",
        label_smoothing=0.0,
        name="balanced_softmax",
        reduction="sum_over_batch_size",
        dtype="float32",
    ):
        super().__init__(class_counts, zero_count, name, reduction, dtype)
        self.label_smoothing = check_label_smoothing(label_smoothing)

    def values(self, logits, labels):
        smoothing = self.label_smoothing
        return balanced_softmax(logits, labels, self.log_prior, label_smoothing=smoothing)
