"""LDAM (Cao et al., NeurIPS 2019): cross-entropy with a larger margin for rarer classes."""

import keras
import tensorflow as tf

from lade_tf import priors
from lade_tf.checks import check_number
from lade_tf.losses.base import ClassCountsLoss, checked


def ldam_margins(class_counts, max_margin, zero_count="error"):
    """Returns the margins Δ_c ∝ n_c^(−1/4), the rarest class's being `max_margin`.

    Args:
        class_counts: [classes] training samples per class.
        max_margin: a number ≥ 0.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.

    Returns:
        [classes] float64 (equation 12 of the paper).
    """
    counts = priors.check_counts(class_counts, zero_count)
    return check_number(max_margin, "max_margin", minimum=0) * (counts / counts.min()) ** -0.25


def ldam(logits, labels, margins):
    """Returns the cross-entropy with the label's margin taken off its logit, one value per example.

    Args:
        logits: [batch, classes].
        labels: [batch] or [batch, 1] integers in 0..C−1.
        margins: [classes], in units of the logits.

    Returns:
        [batch] in nats; float32, or float64 for float64 logits. NaN under XLA where a label is
        out of range.
    """
    logits, labels, validity = checked(logits, labels, len(margins))
    one_hot = tf.one_hot(labels, len(margins), dtype=logits.dtype)
    taken_off = one_hot * tf.constant(margins, logits.dtype)
    values = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits - taken_off)
    return values * validity


@keras.saving.register_keras_serializable("lade_tf")
class LDAM(ClassCountsLoss):
    """Label-distribution-aware margin loss, on integer labels and the logits scale · cosine.

    The label's logit is lowered by scale · Δ_c. The scale is the classifier's
    (`lade_tf.layers.CosineClassifier`): the loss needs it for the margin's size and doesn't
    multiply by it again. The trained logits are taken to carry the training prior.

    Reference: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    NeurIPS 2019, equations 12 and 13; for deferred re-weighting (LDAM-DRW) train it in a
    `lade_tf.models.DeferredReweightingModel`.

    >>> logits = lade_tf.layers.CosineClassifier(3, scale=30.0)(features)
    >>> loss = lade_tf.losses.LDAM([900, 90, 10], max_margin=0.5, scale=30.0)

    Args:
        class_counts: [classes] training samples per class.
        max_margin: margin of the rarest class, in units of the cosine, ≥ 0.
        scale: the classifier's scale, > 0.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.
    """

    ARGUMENTS = ("class_counts", "max_margin", "scale", "zero_count")
    source_prior = "training"

    def __init__(
        self,
        class_counts,
        max_margin=0.5,
        scale=30.0,
        zero_count="error",
        name="ldam",
        reduction="sum_over_batch_size",
        dtype="float32",
    ):
        super().__init__(class_counts, zero_count, name, reduction, dtype)
        self.scale = check_number(scale, "scale", above=0)
        self.margins = ldam_margins(class_counts, max_margin, zero_count)
        self.max_margin = float(max_margin)

    def values(self, logits, labels):
        return ldam(logits, labels, self.scale * self.margins)
