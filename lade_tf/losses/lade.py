"""LADE: Balanced Softmax with the LADER regulariser (equation 20)."""

import keras
import tensorflow as tf

from lade_tf import ops
from lade_tf.checks import check_choice, check_number
from lade_tf.losses.base import ClassCountsLoss


@keras.saving.register_keras_serializable("lade_tf")
class LADE(ClassCountsLoss):
    """mean_i CE(softmax(f_i + log π), y_i) + α · LADER, on integer labels and logits.

    Reference: Hong et al., "Disentangling Label Distribution for Long-tailed Visual Recognition",
    CVPR 2021, equations 11 to 20; `lade_tf.ops.lader` gives the formulas.

    LADER is a statistic of the batch: every example's value is its cross-entropy plus α times the
    batch's LADER, so that Keras' mean is the paper's loss. With "reference" the cross-entropy's
    log π is log(π + 1e-9), as the released code has it. A sample weight w means that the example
    occurs w times, in the cross-entropy and in LADER; `class_weight` makes no sense here, the
    training prior already does what it is for. In a replica of a tf.distribute strategy the values
    are such that Keras' mean over replicas is the loss of the global batch, also of unequal shares.

    >>> loss = lade_tf.losses.LADE([900, 90, 10], alpha=0.1, remine_lambda=0.01)
    >>> model.compile("sgd", loss)

    Args:
        class_counts: [classes] training samples per class.
        alpha: α ≥ 0, the weight of LADER; 0 is Balanced Softmax (whose mean, as Keras' own, isn't
            divided by the sum of sample weights).
        remine_lambda: λ ≥ 0, the weight of T² inside LADER.
        estimator: "paper" (the equations) or "reference" (the authors' released code).
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.

    Raises:
        ValueError: for bad arguments; for labels out of range see `lade_tf.ops.check_labels`.
    """

    ARGUMENTS = ("class_counts", "alpha", "remine_lambda", "estimator", "zero_count")
    source_prior = None

    def __init__(
        self,
        class_counts,
        alpha=0.1,
        remine_lambda=0.01,
        estimator="paper",
        zero_count="error",
        name="lade",
        reduction="mean_with_sample_weight",
        dtype="float32",
    ):
        super().__init__(class_counts, zero_count, name, reduction, dtype)
        self.alpha = check_number(alpha, "alpha", minimum=0)
        self.remine_lambda = check_number(remine_lambda, "remine_lambda", minimum=0)
        self.estimator = check_choice(estimator, ops.ESTIMATORS, "estimator")

    def local_terms(self, logits, labels, sample_weight=None):
        """Returns what needs no other replica: (cross-entropy [batch], statistics [3, C]).

        The statistics are those of `lade_tf.ops.lader_statistics`.
        """
        return ops.lade_terms(logits, labels, self.prior, self.estimator, sample_weight)

    def lader(self, statistics):
        """Returns LADER without its α, and this replica's share of the batch."""
        return ops.lader_of_statistics(statistics, self.prior, self.remine_lambda, self.estimator)

    def __call__(self, y_true, y_pred, sample_weight=None):
        # Keras keeps sample weights from `call`, but LADER needs them: they travel with the labels.
        if sample_weight is not None:
            y_true = (y_true, sample_weight)
        return super().__call__(y_true, y_pred, sample_weight)

    def values(self, logits, labels):
        labels, sample_weight = labels if isinstance(labels, tuple) else (labels, None)
        cross_entropy, statistics = self.local_terms(logits, labels, sample_weight)
        regulariser, share = self.lader(statistics)
        # Keras weights replicas alike, whatever share of the batch they have.
        scale = share * tf.distribute.get_strategy().num_replicas_in_sync
        return scale * (cross_entropy + self.alpha * regulariser)
