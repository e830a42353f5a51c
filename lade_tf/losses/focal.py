"""Focal losses: on the softmax (Lin et al., 2017), class-balanced on sigmoids (Cui et al. 2019)."""

import keras
import numpy as np
import tensorflow as tf

from lade_tf import priors
from lade_tf.checks import check_number
from lade_tf.losses.base import ClassCountsLoss, LogitsLoss, checked


def focal(logits, labels, gamma):
    """Returns −(1 − p_y)^γ · log p_y with p = softmax(f), one value per example.

    Args:
        logits: [batch, classes].
        labels: [batch] or [batch, 1] integers in 0..C−1.
        gamma: γ ≥ 0; 0 is cross-entropy.

    Returns:
        [batch] in nats; float32, or float64 for float64 logits. NaN under XLA where a label is
        out of range.
    """
    logits, labels, validity = checked(logits, labels, logits.shape[-1])
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    values = _power(-tf.math.expm1(-cross_entropy), gamma) * cross_entropy
    return values * validity


def class_balanced_focal(logits, labels, class_weights, gamma):
    """Returns the weighted sum over classes of sigmoid focal losses, one value per example.

    w_y · Σ_c (1 − q_c)^γ · (−log q_c), where q_c is σ(f_c) for the label and 1 − σ(f_c) for the
    other classes.

    Args:
        logits: [batch, classes].
        labels: [batch] or [batch, 1] integers in 0..C−1.
        class_weights: [classes].
        gamma: γ ≥ 0; 0 is class-balanced binary cross-entropy.

    Returns:
        [batch] in nats; float32, or float64 for float64 logits. NaN under XLA where a label is
        out of range.
    """
    num_classes = len(class_weights)
    logits, labels, validity = checked(logits, labels, num_classes)
    signs = 2 * tf.one_hot(labels, num_classes, dtype=logits.dtype) - 1
    # σ(−z) = 1 − q and softplus(−z) = −log q for z = ±f.
    margins = signs * logits
    terms = _power(tf.sigmoid(-margins), gamma) * tf.nn.softplus(-margins)
    weights = tf.gather(tf.constant(class_weights, logits.dtype), labels)
    return weights * tf.reduce_sum(terms, axis=-1) * validity


def effective_number_weights(class_counts, beta, zero_count="error"):
    """Returns the class-balanced weights (1 − β) / (1 − β^n), scaled to sum to C.

    Args:
        class_counts: [classes] training samples per class.
        beta: β in [0, 1); 0 weights all classes alike, towards 1 they go as 1 / n.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.

    Returns:
        [classes] float64 (Cui et al., "Class-Balanced Loss Based on Effective Number of Samples",
        CVPR 2019, equation 3).
    """
    beta = check_number(beta, "beta", minimum=0, below=1)
    counts = priors.check_counts(class_counts, zero_count, whole=True)
    # −expm1(n·log β) is 1 − β^n without cancellation for β near 1.
    weights = 1 / -np.expm1(counts * np.log(beta)) if beta > 0 else np.ones_like(counts)
    return weights * counts.size / weights.sum()


@keras.saving.register_keras_serializable("lade_tf")
class Focal(LogitsLoss):
    """Softmax focal loss, −(1 − p_y)^γ · log p_y, on integer labels and logits.

    Reference: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4, on the
    softmax as the long-tail literature uses it. The trained logits are taken to carry the training
    prior; for γ > 0 their posteriors are flatter than the true ones, which `calibrate` mends.

    >>> model.compile("sgd", lade_tf.losses.Focal(gamma=2.0))

    Args:
        gamma: γ ≥ 0.
    """

    ARGUMENTS = ("gamma",)
    source_prior = "training"

    def __init__(self, gamma=2.0, name="focal", reduction="sum_over_batch_size", dtype="float32"):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.gamma = check_number(gamma, "gamma", minimum=0)

    def values(self, logits, labels):
        return focal(logits, labels, self.gamma)


@keras.saving.register_keras_serializable("lade_tf")
class ClassBalancedFocal(ClassCountsLoss):
    """Class-balanced focal loss on sigmoids, on integer labels and logits.

    Reference: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    The weights count against the training prior: the trained logits are taken to carry none.

    >>> model.compile("sgd", lade_tf.losses.ClassBalancedFocal([900, 90, 10], 0.9999, 2.0))

    Args:
        class_counts: [classes] training samples per class.
        beta: β in [0, 1), see `effective_number_weights`.
        gamma: γ ≥ 0.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.
    """

    ARGUMENTS = ("class_counts", "beta", "gamma", "zero_count")
    source_prior = None

    def __init__(
        self,
        class_counts,
        beta=0.9999,
        gamma=2.0,
        zero_count="error",
        name="class_balanced_focal",
        reduction="sum_over_batch_size",
        dtype="float32",
    ):
        super().__init__(class_counts, zero_count, name, reduction, dtype)
        self.class_weights = effective_number_weights(class_counts, beta, zero_count)
        self.beta = float(beta)
        self.gamma = check_number(gamma, "gamma", minimum=0)

    def values(self, logits, labels):
        return class_balanced_focal(logits, labels, self.class_weights, self.gamma)


def _power(base, gamma):
    """Returns base^γ; the floor keeps the gradient finite at 0 for γ < 1."""
    return tf.pow(tf.maximum(base, np.finfo(np.float32).tiny), gamma)
